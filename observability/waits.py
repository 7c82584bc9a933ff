"""Waits of this process: JSON on `/waits`, a metric on `/metrics`, a line in `electrored status`.

A wait has one of a few fixed names, because it is a label, and a sentence for a person: what happened, the detail,
what to do. Code that retries or polls without progress reports a wait, and ends it with the first success.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

# Names of waits: a server that is down or refuses requests, an open transaction (in the sales database or on a topic),
# a version that this process lacks, partitions that others own, a generation, a loop that hangs, an unrecognised
# file in the inbox.
On = Literal[
    "postgres", "kafka", "registry", "transaction", "version", "partitions", "generation", "loop", "inbox",
]  # fmt: skip
# Waits without work to do: shown, but the process counts as ready.
HINTS: frozenset[On] = frozenset(("partitions", "inbox"))
# The most serious first.
KINDS = ("stall", "wait", "hint")
# A turn takes a second, or as long as a reported wait: after this a loop hangs.
TURN_SECONDS = 60.0


class Cancelled(Exception):
    """A wait was ended because the process, or this part of it, stops. Not a failure, and not logged."""


@dataclass(frozen=True)
class Wait:
    """One wait. `since` is in seconds of the Unix epoch, from the first report on; `detail` is the newest sentence."""

    on: On
    detail: str
    since: float

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return "stall" if self.on == "loop" else "hint" if self.on in HINTS else "wait"


@dataclass(frozen=True)
class _Report:
    """The newest report of a wait: its reporter, thread, and time by the monotonic clock."""

    wait: Wait
    reporter: str
    thread: int
    at: float


class Waits(Collector):
    """The waits of a process, by name and reporter. Thread-safe.

    Loops report their turns: one without a turn for TURN_SECONDS is shown as a wait on itself, unless a wait explains
    it: reported since by its thread, or for the whole process by a thread that is no loop's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[tuple[On, str], _Report] = {}
        # Last turn of each loop, by the monotonic clock and by the calendar, and its thread.
        self._turns: dict[str, tuple[float, float, int]] = {}

    def begin(self, on: On, detail: str, reporter: str = "") -> None:
        """Report a wait, or a newer sentence of one that goes on; each reporter ends its own."""
        with self._lock:
            known = self._waits.get((on, reporter))
            wait = Wait(on, detail, known.wait.since if known else time.time())
            self._waits[on, reporter] = _Report(wait, reporter, threading.get_ident(), time.monotonic())

    def end(self, on: On, reporter: str = "") -> None:
        """End the wait; no-op if there was none."""
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
        """Report a turn of the loop: it did its work, or there was none."""
        self._turns[loop] = time.monotonic(), time.time(), threading.get_ident()

    def leave(self, loop: str) -> None:
        """The loop has ended: no turns are expected any more."""
        self._turns.pop(loop, None)

    def current(self) -> list[Wait]:
        """The most serious first, of these the oldest."""
        with self._lock:
            reports = list(self._waits.values())
        waits = self._stalled([one for one in reports if one.wait.kind == "wait"])
        waits += [one.wait for one in reports]
        return sorted(waits, key=lambda wait: (KINDS.index(wait.kind), wait.since))

    def _stalled(self, reports: list[_Report]) -> list[Wait]:
        turns = dict(self._turns)
        loops = {thread for _, _, thread in turns.values()}

        def is_explained(turned_at: float, thread: int) -> bool:
            own = any(one.thread == thread and one.at >= turned_at for one in reports)
            return own or any(not one.reporter and one.thread not in loops for one in reports)

        late = [
            (turned, loop)
            for loop, (at, turned, thread) in turns.items()
            if time.monotonic() - at > TURN_SECONDS and not is_explained(at, thread)
        ]
        if not late:
            return []
        names = ", ".join(loop for _, loop in sorted(late))
        return [Wait("loop", f"no turn of {names}: it hangs, or waits without an end", min(late)[0])]

    def as_json(self) -> bytes:
        return json.dumps([vars(wait) | {"kind": wait.kind} for wait in self.current()]).encode()

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
