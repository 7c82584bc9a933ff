"""Row 28: `status` shows why a process ended, from the log of its current life only."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.settings import LogSettings
from observability import logs
from stack.ends import End, EndReason, end_reason, ends

BEGAN = datetime(2026, 11, 30, 13, 0, 0).astimezone().timestamp()
FAILED = End(BEGAN, BEGAN + 2, "exit status 1")
KILLED = End(BEGAN, BEGAN + 2, "terminated by SIGKILL")
REFUSED = 'the slot electrored_sales is "gone": drop it, and don\'t\nwait'
Write = Callable[..., Path]


def test_row_28_an_end_that_was_asked_for_is_none(tmp_path: Path) -> None:
    """Nor are the ends before it: a person has looked after it."""
    log = tmp_path / "supervisord.log"
    log.write_text(
        "2026-11-30 12:59:59,100 INFO supervisord started with pid 1\n"
        "2026-11-30 13:00:00,100 INFO spawned: 'sink' with pid 10\n"
        "2026-11-30 13:00:02,100 WARN exited: sink (exit status 1; not expected)\n"
        "2026-11-30 13:00:03,100 INFO spawned: 'sink' with pid 11\n"
        "2026-11-30 13:00:08,200 INFO success: sink entered RUNNING state, process has stayed up\n"
        "2026-11-30 13:00:20,100 INFO spawned: 'worker-city' with pid 12\n"
        "2026-11-30 13:00:40,100 WARN exited: worker-city (terminated by SIGKILL; not expected)\n"
    )
    assert ends(log) == {
        "sink": [End(BEGAN, BEGAN + 2, "exit status 1")],
        "worker-city": [End(BEGAN + 20, BEGAN + 40, "terminated by SIGKILL")],
    }
    with log.open("a") as file:
        file.write("2026-11-30 13:00:41,100 INFO stopped: sink (exit status 0)\n")
    assert list(ends(log)) == ["worker-city"]
    assert ends(tmp_path / "none") == {}


@pytest.fixture(params=["console", "json"])
def write(tmp_path: Path, request: pytest.FixtureRequest, logging_as_before: None) -> Write:
    """Adds to a log what a process of ours writes in that form, so many seconds after the life began."""
    log = tmp_path / "log"

    def add(at: float, level: str, event: str, **fields: object) -> Path:
        out = io.StringIO()
        logs.configure("sink", LogSettings.model_validate({"log_format": request.param}), out)
        getattr(logs.get("test"), level)(event, **fields)
        moment = datetime.fromtimestamp(BEGAN + at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        with log.open("a") as file:
            file.write(re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", moment, out.getvalue(), count=1))
        return log

    return add


def test_row_28_a_refusal_is_its_sentence(write: Write) -> None:
    write(0.5, "info", "following", generation="g1")
    write(1.0, "error", "lineage waits", reason="connection refused")
    log = write(1.5, "error", "stopped", reason=REFUSED)
    assert end_reason(log, FAILED) == EndReason(REFUSED, refused=True)


def test_row_28_a_healthy_line_is_no_reason_and_neither_is_a_line_of_an_earlier_life(write: Write) -> None:
    write(-20, "error", "stopped", reason="of before")
    write(0.5, "info", "following", generation="g1")
    log = write(1.5, "warning", "a server is away, retried", reason="connection refused")
    assert end_reason(log, KILLED) == EndReason("terminated by SIGKILL; it logged no error")
    assert end_reason(log, FAILED) == EndReason("exit status 1; it logged no error")
    # A life that logged nothing shows no line of another.
    late = End(BEGAN + 60, BEGAN + 61, "exit status 1")
    assert end_reason(log, late) == EndReason("exit status 1; it logged no error")


def test_row_28_an_error_that_did_not_end_it_stands_behind_what_did(write: Write) -> None:
    log = write(1.0, "error", "generation is given up", reason="broken")
    assert end_reason(log, KILLED) == EndReason("terminated by SIGKILL: generation is given up: broken")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'Traceback (most recent call last):\n  File "a.py", line 1\n    f()\nValueError: no time zone\n',
            EndReason("exit status 1: ValueError: no time zone"),
        ),
        (
            "╭──── Traceback (most recent call last) ────╮\n│ a.py:1 in f │\n╰────╯\nKeyError: 'x'\n",
            EndReason("exit status 1: KeyError: 'x'"),
        ),
        (
            "error: ELECTRORED_KAFKA_BOOTSTRAP: Field required\n",
            EndReason("ELECTRORED_KAFKA_BOOTSTRAP: Field required", True),
        ),
        ("reason of death\n%3|1.2|FAIL| librdkafka says so\n\n", EndReason("exit status 1: reason of death")),
        (
            "[2026-11-30 13:00:00,1] INFO started\n[2026-11-30 13:00:01,1] ERROR Exiting Kafka\n"
            "[2026-11-30 13:00:01,2] INFO bye\n",
            EndReason("exit status 1: Exiting Kafka"),
        ),
        (
            "2026-11-30 13:00:00.1 UTC [7] LOG:  starting\n2026-11-30 13:00:00.2 UTC [7] FATAL:  no space left\n",
            EndReason("exit status 1: no space left"),
        ),
        ("", EndReason("exit status 1; it logged no error")),
    ],
)
def test_row_28_what_others_print_is_read_too(tmp_path: Path, text: str, reason: EndReason) -> None:
    log = tmp_path / "log"
    assert end_reason(log, FAILED) == EndReason("exit status 1; it logged no error")
    log.write_text(text)
    assert end_reason(log, FAILED) == reason
