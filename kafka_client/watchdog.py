"""Watchdog for calls that may never return: one thread that ends the process when one does not.

librdkafka's send_offsets_to_transaction waits for ever if the broker goes down during the call, whatever its timeout
(issue 5456). Such a producer cannot be closed either: only the end of the process helps; the next one fences this one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from observability import logs

TICK_SECONDS = 1.0
# Callers pass a timeout of 10 s: a call that takes longer than that and this will not return.
STUCK_TICKS = 15

_log = logs.get(__name__)


@dataclass(eq=False)
class _Call:
    flow: str
    ticks: int = 0


class _Watchdog:
    """Counts its own ticks for each open call, not time: a process that was paused is not stuck."""

    def __init__(self) -> None:
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, flow: str) -> Iterator[None]:
        call = _Call(flow)
        with self._lock:
            self._calls.add(call)
            if self._thread is None:
                # A daemon: it has no work to finish.
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._calls.discard(call)

    def _watch(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            with self._lock:
                for call in self._calls:
                    call.ticks += 1
                stuck = next((call for call in self._calls if call.ticks > STUCK_TICKS), None)
            if stuck is not None:
                _end(stuck.flow)


def _end(flow: str) -> None:
    """End the process at once, without cleanup, which would wait for the same call."""
    _log.error("a call to Kafka does not return; the process ends, to be started again", flow=flow)
    logging.shutdown()
    os._exit(1)


# One for the process, because it ends the whole process.
watching = _Watchdog().watching
