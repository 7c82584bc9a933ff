"""Delivery of an outbox's events, in order: a thread for each transport, so that one that is down delays no other."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from openlineage.client.event_v2 import RunEvent, RunState
from openlineage.client.serde import Serde
from prometheus_client import Counter, Gauge

from lineage.events import EventRefused, restored
from lineage.outbox import MOST_EVENTS, Outbox
from observability import logs
from observability.supervision import reason

# Between attempts at a backend that does not answer.
AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# Between polls for rows that other processes of the name stored, and for the lock that lets this one deliver.
HELD_SECONDS = 1.0

WAITING = Gauge("electrored_lineage_waiting_events", "OpenLineage events that wait for the backend", ["lane"])
DELIVERED = Counter(
    "electrored_lineage_delivered_total", "OpenLineage events that the backend took", ["lane"]
)
REFUSED = Counter(
    "electrored_lineage_refused_total", "OpenLineage events that the backend will never take", ["lane"]
)
DROPPED = Counter("electrored_lineage_dropped_total", "OpenLineage events dropped, too many waited", ["lane"])

_log = logs.get(__name__)


# Delivers an event: when it returns the backend has it, and if it raises it may be called again.
Send = Callable[[RunEvent], None]


class Delivery:
    """Stores events for every transport, and delivers them."""

    def __init__(self, queues: Mapping[str, Send], outbox: Outbox) -> None:
        self.outbox = outbox
        self._lanes = [_Lane(outbox, name, send) for name, send in queues.items()]

    def put(self, event: RunEvent) -> None:
        """Store the event behind the earlier ones; does not wait for the backend."""
        text = Serde.to_json(event)
        state = event.eventType.value if event.eventType else RunState.OTHER.value
        for lane in self._lanes:
            lane.put(state, text)

    def close(self, seconds: float) -> bool:
        """Deliver for so long what is stored; whether all was. The rest stays on disk for the next process."""
        deadline = time.monotonic() + seconds
        ended = [lane.close(deadline) for lane in self._lanes]
        # One that still waits for its backend's answer holds the name's lock until the process ends: another process
        # would deliver the same event.
        if not any(lane.is_alive() for lane in self._lanes):
            self.outbox.close()
        return all(ended)


class _Lane(threading.Thread):
    def __init__(self, outbox: Outbox, lane: str, send: Send) -> None:
        super().__init__(name=f"lineage-{lane}", daemon=True)
        self._outbox, self._lane, self._send = outbox, lane, send
        self._wake, self._closing = threading.Event(), threading.Event()
        self._closed_at = math.inf
        self._warned = False
        # Delivered, but not deleted: the disk may be full.
        self._delivered: list[int] = []
        # From 0 on, or an increase would not count the first.
        for counter in (DELIVERED, REFUSED, DROPPED):
            counter.labels(lane)
        outbox.add_lane(lane)
        self.start()

    def put(self, state: str, text: str) -> None:
        if dropped := self._outbox.put(self._lane, state, text):
            DROPPED.labels(self._lane).inc(dropped)
            if not self._warned:
                _log.warning("too many lineage events wait: the oldest go", lane=self._lane, most=MOST_EVENTS)
            self._warned = True
        WAITING.labels(self._lane).set(self._outbox.waiting(self._lane))
        self._wake.set()

    def close(self, deadline: float) -> bool:
        self._closed_at = deadline
        self._closing.set()
        self._wake.set()
        self.join(max(0.0, deadline - time.monotonic()))
        return not self.is_alive() and not self._outbox.waiting(self._lane)

    def run(self) -> None:
        failures = 0
        while not self._is_over():
            self._wake.clear()
            try:
                if self._deliver():
                    if failures:
                        _log.info("lineage events are delivered again", lane=self._lane)
                    failures = 0
                elif self._closing.is_set() and not self._outbox.waiting(self._lane):
                    return
                else:
                    self._wake.wait(HELD_SECONDS)
            # A backend that is down, or a database that cannot be read.
            except Exception as error:
                if not failures and not self._is_over():
                    _log.warning("lineage events wait", lane=self._lane, reason=reason(error))
                # On shutdown: do not wait for a backend that is down.
                if self._closing.wait(AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS) - 1)]):
                    return
                failures += 1

    def _deliver(self) -> bool:
        """Deliver the oldest event; False if there is none for this process."""
        if (oldest := self._outbox.first(self._lane, but=self._delivered)) is None:
            self._remove()
            return False
        event_id, text = oldest
        outcome = DELIVERED
        try:
            self._send(restored(text))
        except EventRefused as error:
            outcome = REFUSED
            _log.warning("a lineage event is refused", lane=self._lane, reason=str(error))
        self._delivered.append(event_id)
        outcome.labels(self._lane).inc()
        self._remove()
        return True

    def _remove(self) -> None:
        if self._delivered:
            self._outbox.remove(self._delivered)
            self._delivered.clear()
        WAITING.labels(self._lane).set(self._outbox.waiting(self._lane))

    def _is_over(self) -> bool:
        return time.monotonic() > self._closed_at
