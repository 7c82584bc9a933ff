"""The whole platform, started by its own command with its own state folder and ports."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import make_url

from stack import orphans, probes
from stack.ports import Ports, is_free
from tests.support.machine import SLOWNESS

COMMAND = [sys.executable, "-m", "stack.cli"]
PROJECT = Path(__file__).resolve().parent.parent.parent
# Only a hang takes longer: a start or a replay is a minute on two cores to themselves, and four on two busy slow ones.
HANGS_SECONDS = 480


@dataclass(frozen=True)
class Platform:
    """A platform, used only as a person would: by its command and by what `electrored env` prints."""

    folder: Path
    offset: int
    # What a person would have exported.
    settings: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, timeout: float = HANGS_SECONDS) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *arguments, "--state-dir", str(self.folder)]
        told = {**environment(), **self.settings}
        return subprocess.run(
            command, cwd=PROJECT, env=told, capture_output=True, text=True, timeout=timeout * SLOWNESS
        )

    def up(self, *arguments: str) -> None:
        done = self.run("up", "--detach", "--port-offset", str(self.offset), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    @cached_property
    def addresses(self) -> dict[str, str]:
        """What `electrored env` prints; it stays the same over restarts."""
        return dict(line.split("=", 1) for line in shlex.split(self.run("env").stdout))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def pid(self, name: str) -> int | None:
        pids: dict[str, int | None] = {row["name"]: row["pid"] for row in self.status()["processes"]}
        return pids[name]

    def watermark(self) -> datetime | None:
        """Up to when the results hold everything; None while PostgreSQL is away."""
        return probes.watermark(make_url(self.addresses["ELECTRORED_RESULTS_DB_URL"]))

    def connect(self, variable: str = "ELECTRORED_SALES_DB_URL") -> psycopg2.extensions.connection:
        url = make_url(self.addresses[variable])
        connection = psycopg2.connect(
            host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
        )
        connection.autocommit = True
        return connection


def environment() -> dict[str, str]:
    """Ours, without settings that would point the platform at other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ELECTRORED_")}


def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for it; returns how long it took. Half of the time at most is spent asking: a command costs a CPU-second.

    `seconds` are those of the machine that limits were set on: a slower one has longer.
    """
    seconds *= SLOWNESS
    began = asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now - began < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(max(0.1, now - asked))
        asked = time.monotonic()
    return time.monotonic() - began


def free_offset() -> int:
    """An offset at which all ports are free."""
    for offset in range(12_000, 40_000, 100):
        ports = Ports.with_offset(offset)
        metrics = range(ports.metrics, ports.metrics + 10)
        if all(is_free(port) for port in (*vars(ports).values(), *metrics)):
            return offset
    raise AssertionError("every port is taken")


def new_platform() -> Platform:
    return Platform(Path(tempfile.mkdtemp(prefix="electrored-e2e-")), free_offset())


def remove(platform: Platform) -> None:
    platform.run("down")
    left = orphans.find(platform.folder.resolve())
    orphans.end(platform.folder.resolve())
    shutil.rmtree(platform.folder)
    assert not left, f"`down` left {left}"
