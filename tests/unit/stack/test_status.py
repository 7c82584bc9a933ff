"""A process is ready only if it answers and waits for nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stack import display, lifecycle, probes, status
from stack.ends import End
from stack.errors import StackError
from stack.programs import Platform, Program
from stack.supervisor import State, Supervisor

NOW = time.time()
OLD = int(NOW) - 3600
Shown = Callable[..., status.Row]


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shown:
    """Gives the row of `capture` in `electrored status`; with `is_ready`, of a process without metrics."""

    def row(
        flow: probes.Flow | None,
        started_at: float = OLD,
        *,
        state: str = "running",
        ends: Sequence[End] = (),
        is_ready: Callable[[], bool] | None = None,
        pid: int | None = None,
    ) -> status.Row:
        port = 9000 if is_ready is None else None
        program = Program("capture", [], {}, is_ready or (lambda: True), metrics_port=port)
        layout = SimpleNamespace(log=lambda name: tmp_path / name)
        platform = cast(Platform, SimpleNamespace(all=lambda: [program], layout=layout))
        supervisor: Any = SimpleNamespace(
            states=lambda: {"capture": State("capture", state, pid or os.getpid(), int(started_at), "")},
            ends=lambda: {"capture": list(ends)},
        )
        monkeypatch.setattr(probes, "flow", lambda port: flow)
        (row,) = status.Monitor(platform, cast(Supervisor, supervisor)).rows()
        return row

    return row


SINCE = 1_700_000_000.0
WAIT = {"on": "transaction", "kind": "wait", "detail": "for pid 99 of shop", "since": SINCE}
STALL = {"on": "loop", "kind": "stall", "detail": "g1.combine does not turn", "since": SINCE}
# A name in the inbox that is not taken, partitions that other workers have.
HINT = {"on": "inbox", "kind": "hint", "detail": "notes.txt is not taken", "since": SINCE}


def flow(*waits: dict[str, Any]) -> probes.Flow:
    return probes.Flow(1.0, None, 0.0, time.monotonic(), list(waits))


def failed(*ago: float, lived: float = 2.0) -> list[End]:
    """Ends so many seconds ago."""
    return [End(NOW - seconds - lived, NOW - seconds, "exit status 1") for seconds in ago]


@pytest.mark.parametrize(
    ("wait", "state", "problem", "line"),
    [
        (WAIT, "waiting", "since 2023-11-14 22:13:20Z: for pid 99 of shop", "waits"),
        (STALL, "stalled", "since 2023-11-14 22:13:20Z: g1.combine does not turn", "stands still"),
        (HINT, "ready", "", "notes"),
    ],
    ids=["a wait", "a loop that stands still", "a hint, which keeps no process from being ready"],
)
def test_what_is_reported_is_state_and_line(
    row: Shown, wait: dict[str, Any], state: str, problem: str, line: str
) -> None:
    shown = row(flow(wait))
    assert (shown.state, shown.problem) == (state, problem)
    (problem_line,) = display.problems([shown])
    assert problem_line.plain == f"capture {line}: since 2023-11-14 22:13:20Z: {wait['detail']}"
    assert (lifecycle._what_waits([shown]) == "") == (state == "ready")


def test_of_several_waits_the_most_serious_is_the_state_and_all_are_lines(row: Shown) -> None:
    waits = [STALL | {"since": SINCE + 9}, WAIT | {"since": SINCE + 1}, HINT]
    shown = row(flow(*waits))
    assert shown.state == "stalled"
    assert [line.plain for line in display.problems([shown])] == [
        "capture stands still: since 2023-11-14 22:13:29Z: g1.combine does not turn",
        "capture waits: since 2023-11-14 22:13:21Z: for pid 99 of shop",
        "capture notes: since 2023-11-14 22:13:20Z: notes.txt is not taken",
    ]
    assert row(flow(*waits[1:])).state == "waiting"
    # What has just begun hides nothing that lasts.
    shown = row(flow(WAIT | {"since": time.time()}, HINT))
    assert (shown.state, len(shown.besides)) == ("ready", 1)


def test_a_process_that_does_not_answer_is_not_ready(row: Shown) -> None:
    shown = row(None)
    assert (shown.state, shown.problem) == ("silent", "no answer on its metrics port 9000")
    assert row(None, started_at=int(time.time())).state == "starting"


def test_a_process_that_a_signal_froze_is_not_ready(row: Shown) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        shown = row(flow(), is_ready=lambda: True, pid=process.pid)
        process.kill()
    assert shown.state == "silent"
    assert f"`kill -CONT {process.pid}` lets it go on" in shown.problem


def test_a_server_that_does_not_answer_is_not_ready(row: Shown) -> None:
    """A broker that was stopped with SIGSTOP runs, for all that its supervisor can see."""
    assert row(None, is_ready=lambda: True).state == "ready"
    assert row(None, is_ready=lambda: False).state == "silent"
    assert row(None, time.time(), is_ready=lambda: False).state == "starting"


@pytest.mark.parametrize(
    ("state", "ends", "age_seconds", "expected"),
    [
        ("running", failed(), 1, "ready"),
        # It was started again by hand, or after servers that came late, and has outlived its lives before.
        ("running", failed(40, 20, 6), 6, "ready"),
        ("running", failed(100, 70, 30, lived=25), 29, "dying"),
        ("running", failed(200, 150, 61, lived=500), 59, "dying"),
        ("running", failed(200, 150, 61, lived=500), 62, "ready"),
        ("running", failed(8000, 4000, 1), 1, "ready"),
        ("starting", failed(), 0, "starting"),
        ("starting", failed(9), 0, "starting"),
        ("starting", failed(20, 12, 6), 0, "dying"),
        ("backoff", failed(1), 0, "dying"),
        ("fatal", failed(), 0, "dying"),
        ("stopping", failed(), 0, "stopping"),
        ("exited", failed(), 0, "stopped"),
    ],
)
def test_row_28_one_that_keeps_dying_is_shown_as_such_and_no_other(
    row: Shown,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    ends: Sequence[End],
    age_seconds: int,
    expected: str,
) -> None:
    monkeypatch.setattr("stack.status.time.time", lambda: NOW)
    shown = row(flow(), NOW - age_seconds, state=state, ends=ends)
    assert shown.state == expected
    assert shown.restarts == len(ends)
    assert bool(shown.problem) == (expected == "dying" and bool(ends))


@pytest.mark.parametrize("state", ["starting", "backoff", "running"])
def test_row_28_a_refusal_is_shown_at_once(row: Shown, tmp_path: Path, state: str) -> None:
    """After its first end, with its sentence, for as long as it is tried again."""
    (tmp_path / "capture").write_text("error: the table public.sales has row level security\n")
    shown = row(flow(), time.time(), state=state, ends=failed(3))
    assert (shown.state, shown.problem) == ("refused", "the table public.sales has row level security")
    (line,) = display.problems([shown])
    assert line.plain == "capture refuses to go on: the table public.sales has row level security"
    later = row(flow(), time.time() - 90, state="running", ends=failed(93))
    assert (later.state, later.problem) == ("ready", "")


def test_a_start_reports_what_it_waits_for_and_ends_with_a_refusal() -> None:
    def shown(state: str, restarts: int, problem: str) -> status.Row:
        return status.Row("capture", state, 1, restarts, None, None, None, "", problem)

    assert lifecycle._what_waits([shown("ready", 0, "")]) == ""
    waits = shown("waiting", 0, "since noon: for pid 99")
    assert lifecycle._what_waits([shown("ready", 0, ""), waits]) == "; capture waits: since noon: for pid 99"
    # Once may be a race with a server that starts.
    assert "no slot" in lifecycle._what_waits([shown("refused", 1, "no slot")])
    with pytest.raises(StackError, match="capture refuses to go on: no slot"):
        lifecycle._what_waits([shown("refused", 2, "no slot")])
    with pytest.raises(StackError, match="capture keeps dying: exit status 1"):
        lifecycle._what_waits([shown("dying", 4, "exit status 1")])
