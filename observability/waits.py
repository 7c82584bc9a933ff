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
# sales database or on a topic), a version that this process lacks, partitions that others have, a generation, a file in
# the inbox that nothing takes.
On = Literal[
    "postgres", "kafka", "registry", "transaction", "payments", "version",
    "partitions", "generation", "loop", "inbox",
]  # fmt: skip
# A turn takes a second, or as long as a server is waited for, which is reported: after this a loop hangs.
TURN_SECONDS = 60.0


@dataclass(frozen=True)
class Wait:
    """One wait. `since` is in seconds of the Unix epoch, from the first report on; `detail` is the newest sentence."""

    on: On
    detail: str
    since: float


class Waits(Collector):
    """The waits of a process, by name and reporter. Thread-safe.

    Loops report their turns: one that does not turn any more, and waits for nothing that is known, is shown as a wait
    on itself.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[tuple[On, str], Wait] = {}
        # When each loop turned last, by a clock that stands still while the machine sleeps, and by the calendar.
        self._turns: dict[str, tuple[float, float]] = {}

    def begin(self, on: On, detail: str, reporter: str = "") -> None:
        """Report a wait, or a newer sentence of one that was reported already; each reporter ends its own."""
        with self._lock:
            known = self._waits.get((on, reporter))
            self._waits[on, reporter] = Wait(on, detail, known.since if known else time.time())

    def end(self, on: On, reporter: str = "") -> None:
        """The wait is over; nothing if there was none."""
        with self._lock:
            self._waits.pop((on, reporter), None)

    @contextmanager
    def during(self, on: On, detail: str, reporter: str = "") -> Iterator[None]:
        """A wait that lasts as long as the block, however it ends."""
        self.begin(on, detail, reporter)
        try:
            yield
        finally:
            self.end(on, reporter)

    def turn(self, loop: str) -> None:
        """The loop turns: it does what it is there for, or sees that there is nothing to do."""
        self._turns[loop] = time.monotonic(), time.time()

    def leave(self, loop: str) -> None:
        """The loop has ended, and is missed by nobody."""
        self._turns.pop(loop, None)

    def current(self) -> list[Wait]:
        """The oldest first."""
        with self._lock:
            waits = sorted(self._waits.values(), key=lambda wait: wait.since)
        return waits or self._stalled()

    def _stalled(self) -> list[Wait]:
        late = [
            (turned, loop)
            for loop, (at, turned) in list(self._turns.items())
            if time.monotonic() - at > TURN_SECONDS
        ]
        if not late:
            return []
        names = ", ".join(loop for _, loop in sorted(late))
        return [Wait("loop", f"no turn of {names}: it hangs, or waits without an end", min(late)[0])]

    def as_json(self) -> bytes:
        return json.dumps([asdict(wait) for wait in self.current()]).encode()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = self._family()
        # Of several reporters the one that has waited longest.
        oldest: dict[On, float] = {}
        for wait in self.current():
            oldest.setdefault(wait.on, wait.since)
        for on, since in oldest.items():
            family.add_metric([on], since)
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
