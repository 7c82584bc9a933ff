"""How long a slice is waited for: as long as it moves, what it reads back included."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from contracts.datasets import KAFKA, Dataset
from streaming.engine.progress import Progress
from streaming.replay import build
from streaming.replay.build import Done
from streaming.replay.errors import RequestRefused

TARGET = 10


class Slow:
    """A loop that reads state back for a while, and then consumes to the target or nothing."""

    flow = "city.g2.merge"

    def __init__(self, batches: int, turns: int) -> None:
        self.step = self
        self.ready: set[int] = set()
        self.restored = 0
        self.written = {"city.g2.state": 3}
        self._batches = batches
        self._turns = turns
        self._at = 0

    def assign(self, _: object) -> None:
        pass

    def run_once(self) -> None:
        time.sleep(0.02)
        if self.restored < self._batches:
            self.restored += 1
        elif self._batches:
            self.ready = {0}
            self._at = min(TARGET, self._at + self._turns)

    def progress(self, _: int) -> Progress:
        return Progress(self._at, events=self._at)

    def consumed(self, _: int) -> int:
        return self._at

    def pending(self) -> bool:
        return False

    def commit(self) -> None:
        pass


def drive(loop: Any) -> Done:
    return build._drive(loop, 0, 0, TARGET, 1.0, threading.Event(), lambda _: None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "STALLED_SECONDS", 0.3)


def test_state_that_is_read_back_is_progress() -> None:
    began = time.monotonic()
    done = drive(Slow(batches=30, turns=1))
    assert (done.events, done.offsets, done.of_offsets) == (TARGET, TARGET, TARGET)
    assert time.monotonic() - began > 0.6, "more than twice the patience"


@pytest.mark.parametrize(("batches", "at"), [(0, -1), (3, 0)])
def test_one_that_stands_still_is_given_up_before_and_after_its_state_is_there(batches: int, at: int) -> None:
    with pytest.raises(RequestRefused, match=f"stands at {at} of {TARGET}"):
        drive(Slow(batches=batches, turns=0))


def test_what_a_slice_reports_is_what_it_read_back_and_wrote_and_from_where_it_would_go_on() -> None:
    report = drive(Slow(batches=2, turns=5)).report("merge", 0)
    assert report.counts == {"merge": {"events": TARGET, "restored": 2}}
    assert report.checkpoints == {"merge": {0: TARGET}}
    assert report.rows == {Dataset(KAFKA, ("city.g2.state",)): 3}
