"""Work that fails is run again behind growing pauses, until it ends, is given up, or is cancelled."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy.exc import OperationalError

from observability import supervision
from observability.supervision import reason, supervise
from observability.waits import Cancelled


class Stop(threading.Event):
    """Notes the pauses instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        return False


def test_work_that_fails_is_run_again_behind_growing_pauses() -> None:
    stop, failing = Stop(), [ValueError("a"), ValueError("b"), ValueError("c")]
    seen: list[tuple[str, int]] = []

    def work() -> None:
        if failing:
            raise failing.pop(0)

    def on_failure(error: Exception, failures: int) -> bool:
        seen.append((str(error), failures))
        return True

    supervise(work, stop, [1.0, 5.0], on_failure, steady_seconds=60)
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    assert stop.pauses == [1.0, 5.0, 5.0]


def test_failures_are_counted_anew_after_steady_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    counts: list[int] = []
    monkeypatch.setattr(supervision, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])}))

    def work() -> None:
        now[0] += 1 if len(counts) < 2 else 100
        raise ValueError

    def on_failure(_: Exception, failures: int) -> bool:
        counts.append(failures)
        return len(counts) < 3

    supervise(work, Stop(), [1.0], on_failure, steady_seconds=60)
    assert counts == [0, 1, 0]


def test_what_the_decision_raises_ends_it_and_cancelled_is_no_failure() -> None:
    def fail() -> None:
        raise ValueError("mend me")

    def refuse(error: Exception, _: int) -> bool:
        raise RuntimeError from error

    with pytest.raises(RuntimeError):
        supervise(fail, Stop(), [1.0], refuse, steady_seconds=60)

    def cancelled() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        supervise(cancelled, Stop(), [1.0], refuse, steady_seconds=60)


def test_stopped_work_is_not_run_again() -> None:
    stop, runs = threading.Event(), []

    def work() -> None:
        runs.append(time.monotonic())
        stop.set()
        raise ValueError

    supervise(work, stop, [60.0], lambda *_: True, steady_seconds=60)
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("x" * 500), "x" * 200),
        (OperationalError("SELECT secret", {}, ValueError("away\nDETAIL")), "away"),
    ],
)
def test_a_reason_is_one_line_without_the_statement(error: Exception, line: str) -> None:
    assert reason(error) == line
