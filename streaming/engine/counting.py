"""What a loop counts for whoever watches it: events by what became of them, and how far behind it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from prometheus_client import Counter

from observability.metrics import EVENTS, LAG
from streaming.engine.progress import Progress

MEASURE_SECONDS = 1.0

DUPLICATES = Counter("electrored_duplicates_total", "Events dropped because they were seen before", ["flow"])
LATE = Counter(
    "electrored_late_total", "Events recorded after their window's end and grace; counted", ["flow"]
)
FUTURE = Counter(
    "electrored_future_total", "Events whose event time lies after their recording; counted", ["flow"]
)
DEAD = Counter("electrored_dead_letters_total", "Events that could not be taken", ["flow"])


class Counting:
    """The metrics of one flow."""

    def __init__(self, flow: str) -> None:
        self._flow = flow
        self._measured_at = 0.0

    def count(self, before: Progress, after: Progress) -> None:
        """What a committed transaction added to a partition's progress."""
        EVENTS.labels(self._flow).inc(after.events - before.events)
        DUPLICATES.labels(self._flow).inc(after.duplicates - before.duplicates)
        LATE.labels(self._flow).inc(after.late - before.late)
        DEAD.labels(self._flow).inc(after.dead - before.dead)
        FUTURE.labels(self._flow).inc(after.future - before.future)

    def measure(self, behind: Callable[[], int]) -> None:
        """Once a second, how far behind the flow is."""
        if time.monotonic() - self._measured_at >= MEASURE_SECONDS:
            self._measured_at = time.monotonic()
            LAG.labels(self._flow).set(behind())

    def close(self) -> None:
        """A process outlives its generations: one that is left is not behind either."""
        with suppress(KeyError):
            LAG.remove(self._flow)
