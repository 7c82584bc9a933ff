"""Processes that a killed supervisor left behind: identified by a mark in their environment, ended by pid."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

# Set for supervisord and so for all its children; `env` does not print it, so no shell exports it.
MARK = "ELECTRORED_PROCESS_OF"
# A broker with unwritten data needs some seconds; a process that needs more is killed, and recovers at its next start.
PATIENCE_SECONDS = 15.0
# An environment reads empty while a process is replacing its program, which takes milliseconds.
LOOKS, LOOK_SECONDS = 3, 0.05


def find(folder: Path) -> list[psutil.Process]:
    """Every process that was started for the stack of this state folder."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    unclear = [process for process in psutil.process_iter() if process.pid not in own]
    marked: list[psutil.Process] = []
    for look in range(LOOKS):
        if look:
            time.sleep(LOOK_SECONDS)
        looked_at, unclear = unclear, []
        for process in looked_at:
            try:
                environment = process.environ()
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
                continue
            if not environment:
                unclear.append(process)
            elif environment.get(MARK) == str(folder):
                marked.append(process)
    return marked


def end(folder: Path) -> int:
    """Stop them by signal, then kill the rest; returns how many there were."""
    processes = find(folder)
    for process in processes:
        try:
            # SIGTERM lets PostgreSQL wait for its clients; SIGINT makes it stop cleanly at once.
            process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    _, stubborn = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
    for process in stubborn:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(stubborn, timeout=PATIENCE_SECONDS)
    return len(processes)
