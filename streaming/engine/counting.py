"""Metrics of a loop: events by outcome, and how far behind it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from prometheus_client import Counter

from observability import logs
from observability.metrics import EVENTS, LAG
from streaming.engine.progress import Progress

_log = logs.get(__name__)

MEASURE_SECONDS = 1.0

DUPLICATES = Counter(
    "electrored_duplicates_total", "Events dropped because their seq was processed before", ["flow"]
)
LATE = Counter(
    "electrored_late_total", "Events recorded after their window's end and grace; counted", ["flow"]
)
FUTURE = Counter(
    "electrored_future_total", "Events whose event time lies after their recording; counted", ["flow"]
)
REFUSED = Counter(
    "electrored_refused_events_total", "Events that were refused, by reason", ["flow", "reason"]
)


class Counting:
    """The metrics of one flow."""

    def __init__(self, flow: str) -> None:
        self._flow = flow
        # From 0 on, or an increase would not count the first.
        DUPLICATES.labels(flow)
        self._measured_at = 0.0
        self._partitions: set[int] = set()

    def count(self, before: Progress, after: Progress) -> None:
        """What a committed transaction added to a partition's progress."""
        EVENTS.labels(self._flow).inc(after.events - before.events)
        self._count_duplicates(before, after)
        LATE.labels(self._flow).inc(after.late - before.late)
        FUTURE.labels(self._flow).inc(after.future - before.future)

    def _count_duplicates(self, before: Progress, after: Progress) -> None:
        dropped = after.duplicates - before.duplicates
        DUPLICATES.labels(self._flow).inc(dropped)
        if dropped:
            _log.warning(
                "events were dropped as duplicates",
                flow=self._flow,
                dropped=dropped,
                offsets=f"{before.next_offset}–{after.next_offset - 1}",
            )

    def refuse(self, refused: Mapping[str, int]) -> None:
        """Dead letters of a committed transaction, by kind."""
        for reason, count in refused.items():
            REFUSED.labels(self._flow, reason).inc(count)

    def measure(self, behind: Callable[[], Mapping[int, int]]) -> None:
        """Once a second, how far behind the flow is, by partition."""
        if time.monotonic() - self._measured_at >= MEASURE_SECONDS:
            self._measured_at = time.monotonic()
            lag = behind()
            for partition, events in lag.items():
                LAG.labels(self._flow, partition).set(events)
            self._leave(self._partitions - lag.keys())
            self._partitions = set(lag)

    def close(self) -> None:
        """Remove the lag series: a process outlives its generations, and one that it left has no lag."""
        self._leave(self._partitions)

    def _leave(self, partitions: set[int]) -> None:
        for partition in partitions:
            LAG.remove(self._flow, str(partition))
