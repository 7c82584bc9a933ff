"""How far a loop is, for who tells of its run: looked at now and then by the loop itself, asked for from elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from contracts.datasets import KAFKA, Dataset
from observability.progress_report import ProgressReport
from streaming.engine.loop import Loop, Punctuator

LOOK_SECONDS = 1.0
COUNTS = ("events", "duplicates", "late", "dead", "future")


@dataclass(frozen=True)
class LoopCounts:
    """One look. `watermark` is None while an input has none."""

    counts: Mapping[str, int] = field(default_factory=dict)
    checkpoints: Mapping[int, int] = field(default_factory=dict)
    watermark: datetime | None = None
    written: Mapping[str, int] = field(default_factory=dict)


class LoopStatus(Punctuator):
    """Of one loop, whose partitions have a watermark when all `inputs` of them have told theirs."""

    def __init__(self, step: str, inputs: int) -> None:
        self.step = step
        self.seen = LoopCounts()
        self._inputs = inputs
        self._looked_at = 0.0

    def punctuate(self, loop: Loop) -> None:
        if time.monotonic() < self._looked_at + LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        self._look(loop)

    def close(self, loop: Loop) -> None:
        """What is told of the end holds the last commit too."""
        self._look(loop)

    def _look(self, loop: Loop) -> None:
        progress = {partition: loop.step.progress(partition) for partition in loop.ready}
        marks = [
            min(found.watermarks.values()) if len(found.watermarks) >= self._inputs else None
            for found in progress.values()
        ]
        known = [mark for mark in marks if mark is not None]
        self.seen = LoopCounts(
            {name: sum(getattr(found, name) for found in progress.values()) for name in COUNTS},
            {partition: found.next_offset for partition, found in progress.items()},
            min(known) if known and len(known) == len(marks) else None,
            dict(loop.written),
        )


def facts(standings: Iterable[LoopStatus]) -> ProgressReport:
    """What a worker says of its run: the watermark is that of its last step."""
    found = {standing.step: standing.seen for standing in standings}
    written = Counter[str]()
    for seen in found.values():
        written.update(seen.written)
    return ProgressReport(
        watermark=found["merge"].watermark if "merge" in found else None,
        counts={step: seen.counts for step, seen in found.items()},
        checkpoints={step: seen.checkpoints for step, seen in found.items()},
        rows={Dataset(KAFKA, (name,)): count for name, count in written.items()},
    )
