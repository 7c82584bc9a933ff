"""Checks whether this machine can run the platform, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stack import java, postgres
from stack.errors import StackError
from stack.layout import Layout
from stack.lifecycle import NEEDED_BYTES
from stack.ports import require_free
from stack.programs import Platform
from stack.supervisor import Supervisor

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """The result of one check. `remedy` is empty where nothing is to be done."""

    what: str
    result: str
    remedy: str


def examine(layout: Layout, platform: Platform) -> list[Finding]:
    """Run all checks; nothing is changed, nothing is downloaded."""
    questions: dict[str, Callable[[], str]] = {
        "Python": _python,
        "Java": java.version,
        "programs": _programs,
        "PostgreSQL": _postgres,
        "disk": lambda: _disk(layout),
        "state": lambda: _state(layout),
        "ports": lambda: _ports(layout, platform),
        "libraries": _libraries,
    }
    return [_ask(what, question) for what, question in questions.items()]


def _ask(what: str, question: Callable[[], str]) -> Finding:
    try:
        return Finding(what, question(), "")
    except StackError as error:
        return Finding(what, str(error), error.remedy)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(what, str(error), "see the message")


def _python() -> str:
    version = sys.version.split()[0]
    if sys.version_info < OLDEST_PYTHON:
        raise StackError(f"{version} is too old", "install Python 3.11 or newer and run `make clean up`")
    return f"{version} at {sys.executable}"


def _programs() -> str:
    missing = [program for program in ("kafka", java.JMX_EXPORTER, "registry") if not java.is_cached(program)]
    if missing:
        return f"{', '.join(missing)} not in {java.cache_dir()} yet: the first `up` downloads them"
    return f"in {java.cache_dir()}"


def _postgres() -> str:
    done = subprocess.run(
        [str(postgres.binaries() / "postgres"), "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    user = postgres.SYSTEM_USER if os.geteuid() == 0 else "the user who starts it"
    return f"{done.stdout.strip()}, runs as {user}"


def _disk(layout: Layout) -> str:
    folder = _nearest(layout)
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise StackError(
            f"only {free // 2**20} MiB are free at {folder}", "make room, or use another --state-dir"
        )
    return f"{free / 2**30:.1f} GiB free at {folder}"


def _state(layout: Layout) -> str:
    if not os.access(folder := _nearest(layout), os.W_OK):
        raise StackError(f"cannot write to {folder}", "use another --state-dir")
    return f"{layout.folder}, {'used before' if layout.options() else 'new'}"


def _nearest(layout: Layout) -> Path:
    """The state folder, or the one in which it would be created."""
    return next(path for path in (layout.folder, *layout.folder.parents) if path.exists())


def _ports(layout: Layout, platform: Platform) -> str:
    if Supervisor(layout).is_running():
        return "in use by this stack, which is up"
    ports = {port: what for program in platform.all() for what, port in program.listens.items()}
    for port, what in ports.items():
        require_free(port, what)
    return f"free: {', '.join(str(port) for port in sorted(ports))}"


def _libraries() -> str:
    names = ("confluent-kafka", "polars", "dagster", "fastapi", "supervisor", "jgo")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
