"""Supervision: what dies is started again, what a killed supervisor leaves is ended, stacks do not touch each other."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from stack import orphans
from stack.ends import end_reason
from stack.layout import Layout
from stack.programs import Program
from stack.supervisor import Supervisor, SupervisorGone
from tests.support.waiting import wait_until

SLEEP = [sys.executable, "-c", "import time; print('at work', flush=True); time.sleep(600)"]
DIE = [sys.executable, "-c", "import sys; sys.exit('reason of death')"]


@pytest.fixture
def layout() -> Iterator[Layout]:
    folder = Path(tempfile.mkdtemp(prefix="electrored-test-"))
    layout = Layout(folder)
    layout.create()
    yield layout
    with contextlib.suppress(SupervisorGone):
        Supervisor(layout).shutdown()
    orphans.end(layout.folder)
    shutil.rmtree(folder)


def _program(name: str, command: list[str]) -> Program:
    return Program(name, command, {}, lambda: True)


def test_a_process_that_is_killed_is_started_again(layout: Layout) -> None:
    supervisor = Supervisor(layout)
    supervisor.start([_program("worker", SLEEP)])
    supervisor.start_process("worker")
    wait_until(lambda: supervisor.states()["worker"].pid != 0)
    first = supervisor.states()["worker"].pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: supervisor.states()["worker"].pid not in (0, first))
    assert [end.how for end in supervisor.ends()["worker"]] == ["terminated by SIGKILL"]


def test_one_that_keeps_dying_is_tried_with_growing_waits(layout: Layout) -> None:
    supervisor = Supervisor(layout)
    supervisor.start([_program("worker", DIE)])
    supervisor.start_process("worker")
    wait_until(lambda: len(supervisor.ends().get("worker", ())) >= 3)
    spawned = [line for line in layout.supervisor_log.read_text().splitlines() if "spawned" in line]
    at = [datetime.fromisoformat(line[:23]) for line in spawned[:3]]
    first, second = (after - before for before, after in pairwise(at))
    # The lower bounds alone hold on any machine: a busy one adds the time that a process takes to start and end.
    assert first >= timedelta(seconds=1)
    assert second >= timedelta(seconds=2)
    last = supervisor.ends()["worker"][-1]
    assert end_reason(layout.log("worker"), last).text == "exit status 1: reason of death"


def test_what_a_killed_supervisor_left_is_found_and_ended(layout: Layout) -> None:
    supervisor = Supervisor(layout)
    supervisor.start([_program("worker", SLEEP)])
    supervisor.start_process("worker")
    # A write to the pipe of a supervisor that is gone ends the worker: kill only after its output.
    wait_until(lambda: layout.log("worker").exists() and "at work" in layout.log("worker").read_text())
    worker = supervisor.states()["worker"].pid
    os.kill(supervisor.pid(), signal.SIGKILL)
    wait_until(lambda: not supervisor.is_running())
    assert psutil.pid_exists(worker)
    assert [process.pid for process in orphans.find(layout.folder)] == [worker]
    assert orphans.end(layout.folder) == 1
    assert not orphans.find(layout.folder)
    supervisor.start([_program("worker", SLEEP)])
    assert supervisor.states()["worker"].state == "stopped"


def test_ending_leftovers_of_one_stack_leaves_another_alone(layout: Layout) -> None:
    supervisor = Supervisor(layout)
    supervisor.start([_program("worker", SLEEP)])
    supervisor.start_process("worker")
    assert orphans.end(layout.folder.parent / "another") == 0
    assert supervisor.states()["worker"].state in ("starting", "running")


def test_a_shutdown_leaves_no_process(layout: Layout) -> None:
    supervisor = Supervisor(layout)
    supervisor.start([_program("worker", SLEEP)])
    supervisor.start_process("worker")
    wait_until(lambda: supervisor.states()["worker"].pid != 0)
    supervisor.shutdown()
    assert not supervisor.is_running()
    assert not orphans.find(layout.folder)


def test_the_configuration_with_its_passwords_is_ours_alone(layout: Layout) -> None:
    Supervisor(layout).start([_program("worker", SLEEP)])
    assert layout.supervisor_config.stat().st_mode & 0o077 == 0
