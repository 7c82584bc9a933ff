"""Thread-safe status of a loop: sampled by the loop every second, read by the lineage emitter."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from contracts.datasets import KAFKA, Dataset
from observability.progress_report import ProgressReport
from streaming.engine.loop import Loop, Punctuator

SAMPLE_SECONDS = 1.0
COUNTS = ("events", "duplicates", "late", "dead", "future")


@dataclass(frozen=True)
class LoopCounts:
    """One sample. `watermark` is None while an input has none."""

    counts: Mapping[str, int] = field(default_factory=dict)
    checkpoints: Mapping[int, int] = field(default_factory=dict)
    watermark: datetime | None = None
    written: Mapping[str, int] = field(default_factory=dict)


class LoopStatus(Punctuator):
    """Samples one loop. A partition has a watermark once those of all `inputs` have arrived."""

    def __init__(self, step: str, inputs: int) -> None:
        self.step = step
        self.newest = LoopCounts()
        self._inputs = inputs
        self._sampled_at = 0.0

    def punctuate(self, loop: Loop) -> None:
        if time.monotonic() < self._sampled_at + SAMPLE_SECONDS:
            return
        self._sampled_at = time.monotonic()
        self._sample(loop)

    def close(self, loop: Loop) -> None:
        """One more sample, which includes the last commit."""
        self._sample(loop)

    def _sample(self, loop: Loop) -> None:
        progress = {partition: loop.step.progress(partition) for partition in loop.ready}
        marks = [
            min(one.watermarks.values()) if len(one.watermarks) >= self._inputs else None
            for one in progress.values()
        ]
        known = [mark for mark in marks if mark is not None]
        self.newest = LoopCounts(
            {name: sum(getattr(one, name) for one in progress.values()) for name in COUNTS},
            {partition: one.next_offset for partition, one in progress.items()},
            min(known) if known and len(known) == len(marks) else None,
            dict(loop.written),
        )


def report(statuses: Iterable[LoopStatus]) -> ProgressReport:
    """The report of a worker: the watermark is that of its last step."""
    by_step = {status.step: status.newest for status in statuses}
    written = Counter[str]()
    for sample in by_step.values():
        written.update(sample.written)
    return ProgressReport(
        watermark=by_step["merge"].watermark if "merge" in by_step else None,
        counts={step: sample.counts for step, sample in by_step.items()},
        checkpoints={step: sample.checkpoints for step, sample in by_step.items()},
        rows={Dataset(KAFKA, (name,)): count for name, count in written.items()},
    )
