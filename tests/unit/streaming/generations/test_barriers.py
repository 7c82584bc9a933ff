"""What takes part in a barrier never waits for the database, and is not held for ever by one that is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from streaming.generations import barriers
from streaming.generations.barriers import BarrierReports, Barriers
from tests.support.waiting import wait_until


class Database:
    """One barrier stands in it; while it is away every question waits and then fails, as a connection would."""

    def __init__(self) -> None:
        self.away = threading.Event()
        self.back = threading.Event()
        self.asked = 0
        self.left = 10.0
        self.reports: list[dict[str, Any]] = []

    @contextmanager
    def begin(self) -> Iterator[Any]:
        self.asked += 1
        if self.away.is_set():
            self.back.wait(0.05)
            raise OperationalError("connect", {}, Exception("connection refused"))
        yield self

    connect = begin

    def execute(self, _: Any, rows: list[dict[str, Any]] | None = None) -> Any:
        self.reports += rows or []
        row = SimpleNamespace(
            id=7, pipeline="city", generations=[1, 2], state="targeted", targets={"0": 5}, left=self.left
        )
        return SimpleNamespace(all=lambda: [row])


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def looking(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Barriers]:
    monkeypatch.setattr(barriers, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(barriers, "OVERDUE_SECONDS", 0.0)
    anything: Any = database
    made = Barriers(anything)
    made.start()
    yield made
    made.stop()


def test_a_report_does_not_wait_for_the_database_and_is_written_when_that_is_back(
    database: Database, looking: Barriers
) -> None:
    barrier = wait_until(lambda: looking.standing("city", 1), 10)
    reports = BarrierReports(looking, 1, "combine")
    database.away.set()
    asked = database.asked
    wait_until(lambda: database.asked > asked, 10)
    began = time.monotonic()
    for offset in range(1000):
        reports.report(barrier, {0: offset, 1: 5})
    assert time.monotonic() - began < 1, "a loop would have stood still a thousand times"
    assert database.reports == []
    database.away.clear()
    wait_until(lambda: database.reports, 10)
    # Only the newest of each partition.
    assert [(row["partition"], row["offset"]) for row in database.reports] == [(0, 999), (1, 5)]
    reports.report(barrier, {0: 999, 1: 5})
    reports.report(barrier, {0: 1000, 1: 5})
    wait_until(lambda: len(database.reports) > 2, 10)
    assert [(row["partition"], row["offset"]) for row in database.reports[2:]] == [(0, 1000)]


def test_a_database_that_is_away_is_asked_with_pauses(database: Database, looking: Barriers) -> None:
    barrier = wait_until(lambda: looking.standing("city", 1), 10)
    database.away.set()
    database.back.set()
    asked, began = database.asked, time.monotonic()
    while time.monotonic() < began + 0.5:
        looking.report(barrier, 1, "merge", {0: database.asked})
    assert database.asked - asked < 40


def test_no_loop_is_held_for_ever_by_a_barrier_of_a_database_that_is_away(
    database: Database, looking: Barriers
) -> None:
    database.left = 0.3
    wait_until(lambda: (found := looking.standing("city", 1)) and found.until < time.monotonic() + 1, 10)
    assert looking.standing("city", 3) is None
    database.away.set()
    began = time.monotonic()
    wait_until(lambda: looking.standing("city", 1) is None, 10)
    assert time.monotonic() - began < 5
    database.left = 10.0
    database.away.clear()
    wait_until(lambda: looking.standing("city", 1), 10)
