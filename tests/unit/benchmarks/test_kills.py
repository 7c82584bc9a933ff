"""What kills processes signals none that does not run, and waits through outages with a limit."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import psycopg2
import pytest

from benchmarks import kills, platform
from stack.supervisor import State


@pytest.mark.parametrize(("state", "expected"), [("running", 42), ("starting", 0), ("backoff", 0)])
def test_only_a_process_that_runs_has_a_number(
    monkeypatch: pytest.MonkeyPatch, state: str, expected: int
) -> None:
    states = {"sink": State("sink", state, 42, 0, "")}
    monkeypatch.setattr(platform, "supervisor", lambda _: SimpleNamespace(states=lambda: states))
    assert kills.pid_of({}, "sink") == expected


def test_an_outage_of_the_database_is_waited_out() -> None:
    answers: Iterator[int | Exception] = iter([psycopg2.OperationalError("starting up"), 0, 7])

    def condition() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert kills.until(condition, "seven") == 7


def test_what_does_not_come_is_an_error_with_the_last_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "PATIENCE_SECONDS", 0.0)

    def condition() -> bool:
        raise psycopg2.OperationalError("starting up")

    with pytest.raises(TimeoutError, match="the sales database: starting up"):
        kills.until(condition, "the sales database")
