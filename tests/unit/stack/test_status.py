"""A process is ready only if it answers and waits for nothing."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stack import display, probes, status
from stack.programs import Platform, Program
from stack.supervisor import State, Supervisor

OLD = int(time.time()) - 3600


def row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flow: probes.Flow | None, started_at: int = OLD
) -> status.Row:
    program = Program("capture", [], {}, lambda: True, metrics_port=9000)
    layout = SimpleNamespace(log=lambda name: tmp_path / name)
    platform = cast(Platform, SimpleNamespace(all=lambda: [program], layout=layout))
    supervisor: Any = SimpleNamespace(
        states=lambda: {"capture": State("capture", "running", 12, started_at, "")}, restarts=dict
    )
    monkeypatch.setattr(probes, "flow", lambda port: flow)
    (found,) = status.Monitor(platform, cast(Supervisor, supervisor)).rows()
    return found


def flow(*waits: dict[str, Any]) -> probes.Flow:
    return probes.Flow(1.0, None, 0.0, time.monotonic(), list(waits))


def test_a_process_that_waits_is_not_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wait = {"on": "transaction", "detail": "for pid 99 of shop", "since": 1_700_000_000.0}
    found = row(monkeypatch, tmp_path, flow(wait))
    assert (found.state, found.problem) == ("waiting", "since 2023-11-14 22:13:20Z: for pid 99 of shop")
    (line,) = display.problems([found])
    assert line.plain == "capture waits: since 2023-11-14 22:13:20Z: for pid 99 of shop"


def test_a_wait_of_a_moment_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wait = {"on": "postgres", "detail": "restarts", "since": time.time()}
    assert row(monkeypatch, tmp_path, flow(wait)).state == "ready"


def test_a_process_that_does_not_answer_is_not_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = row(monkeypatch, tmp_path, None)
    assert (found.state, found.problem) == ("silent", "no answer on its metrics port 9000")
    assert row(monkeypatch, tmp_path, None, started_at=int(time.time())).state == "starting"
