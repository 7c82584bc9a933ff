"""What this process waits for: JSON on `/waits`, a metric on `/metrics`, a line in `electrored status`.

A wait has one of a few fixed names, because it is a label, and a sentence for a person: what happened, the detail,
what to do. Code that retries, or polls what stands still, reports the wait and ends it with the first success.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

# What can be waited for: a server that does not answer or refuses what it took before, somebody's transaction (in the
# sales database or on a topic), a version that this process lacks, a file in the inbox that nothing takes.
On = Literal["postgres", "kafka", "registry", "transaction", "payments", "version", "inbox"]


@dataclass(frozen=True)
class Wait:
    """One wait. `since` is in seconds of the Unix epoch, from the first report on; `detail` is the newest sentence."""

    on: On
    detail: str
    since: float


class Waits(Collector):
    """The waits of a process, by name. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[On, Wait] = {}

    def begin(self, on: On, detail: str) -> None:
        """Report a wait, or a newer sentence of one that was reported already."""
        with self._lock:
            known = self._waits.get(on)
            self._waits[on] = Wait(on, detail, known.since if known else time.time())

    def end(self, on: On) -> None:
        """The wait is over; nothing if there was none."""
        with self._lock:
            self._waits.pop(on, None)

    @contextmanager
    def during(self, on: On, detail: str) -> Iterator[None]:
        """A wait that lasts as long as the block, however it ends."""
        self.begin(on, detail)
        try:
            yield
        finally:
            self.end(on)

    def current(self) -> list[Wait]:
        """The oldest first."""
        with self._lock:
            return sorted(self._waits.values(), key=lambda wait: wait.since)

    def as_json(self) -> bytes:
        return json.dumps([asdict(wait) for wait in self.current()]).encode()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = self._family()
        for wait in self.current():
            family.add_metric([wait.on], wait.since)
        yield family

    @staticmethod
    def _family() -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "electrored_waiting_since_timestamp_seconds",
            "Since when the process waits for this without a success; no series while it does not wait",
            labels=["on"],
        )


# The waits of this process.
WAITS = Waits()
