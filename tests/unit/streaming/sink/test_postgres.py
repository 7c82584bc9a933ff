"""What ends the following of one generation ends no other, unless it is the one that is shown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from kafka_client.errors import Fatal
from streaming.sink import postgres
from streaming.sink.targets import GenerationRow

ENTRY = GenerationRow("city", 2, 1, "city.g2.state", "id", 2)


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The generation's state in the table, read by read; the last one stays."""
    left: list[str] = []

    def load(*_: object) -> Any:
        return SimpleNamespace(state=left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr(postgres, "load", load)
    monkeypatch.setattr(postgres, "AGAIN_SECONDS", (0.0,))
    # One that was used before keeps to the configuration of that time.
    monkeypatch.setattr(postgres, "_log", structlog.get_logger())
    return left


def follow(work: Callable[[], None]) -> list[Any]:
    """What is logged until the end."""
    anything: Any = None
    with capture_logs() as logged:
        postgres.keep_writing(anything, ENTRY, work, threading.Event())
    return [(line["log_level"], line["reason"]) for line in logged]


def failing(*errors: Exception) -> Callable[[], None]:
    """Fails so, one after the other, and then not."""
    left = list(errors)

    def work() -> None:
        if left:
            raise left.pop(0)

    return work


@pytest.mark.parametrize("state", ["candidate", "standby", "building"])
def test_one_that_is_not_shown_is_tried_again_and_its_reason_is_logged_once(
    states: list[str], state: str
) -> None:
    states.append(state)
    gone = Fatal("the topic is gone")
    logged = follow(failing(gone, gone, gone, KeyError("a defect"), KeyError("a defect")))
    assert logged == [("error", "the topic is gone"), ("error", "KeyError('a defect')")]


def test_what_ends_the_active_one_is_raised(states: list[str]) -> None:
    states += ["candidate", "active"]
    with pytest.raises(Fatal, match="second"):
        follow(failing(Fatal("first"), Fatal("second")))


@pytest.mark.parametrize("state", ["retired", "failed"])
def test_one_that_is_no_more_is_left_without_a_log_line(states: list[str], state: str) -> None:
    states.append(state)
    assert follow(failing(Fatal("it is retired: its rows are written no more"))) == []
