"""The lag of capture, NaN while unknown."""

from __future__ import annotations

import math
import time

from prometheus_client import Gauge

# A lag is measured every second; an older one is unknown.
LAG_SECONDS = 5.0


class Lag:
    """The last measured lag; NaN when it is older than LAG_SECONDS."""

    def __init__(self) -> None:
        self._bytes = 0
        self._at = -math.inf
        help_text = "WAL that is flushed and not yet in the log, in bytes; NaN while unknown"
        Gauge("electrored_lag_bytes", help_text).set_function(self._now)

    def set(self, lag: int) -> None:
        self._bytes, self._at = lag, time.monotonic()

    def _now(self) -> float:
        return self._bytes if time.monotonic() - self._at < LAG_SECONDS else math.nan


LAG = Lag()
