"""Windows of events, between neighbouring bounds of the calendar: of many events at once, and of one.

Times are 64-bit microseconds. A time zone is resolved by the calendar alone, for both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contracts.calendar import Calendar
from contracts.times import EPOCH

MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1) // MICROSECOND
# Days of which a worker keeps the bounds; live events are of a few.
_MOST_DAYS = 4_096


def to_micros(moment: datetime) -> int:
    """Microseconds since the Unix epoch, exactly."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    return EPOCH + micros * MICROSECOND


def assign(event_time: pl.Series, calendar: Calendar) -> pl.DataFrame:
    """`window_start` and `window_end` (microseconds) of every event time (microseconds), in the given order."""
    if event_time.is_empty():
        return pl.DataFrame(schema={"window_start": pl.Int64, "window_end": pl.Int64})
    moments = event_time.to_numpy()
    bounds: NDArray[np.int64] = np.array(
        _bounds(calendar, int(moments.min()), int(moments.max())), dtype=np.int64
    )
    index = np.searchsorted(bounds, moments, side="right")
    return pl.DataFrame({"window_start": bounds[index - 1], "window_end": bounds[index]})


def assigner(calendar: Calendar) -> Callable[[int], tuple[int, int]]:
    """The function from an event time to its window's start and end."""

    @lru_cache(_MOST_DAYS)
    def bounds_of(day: int) -> list[int]:
        return _bounds(calendar, day * _DAY, (day + 1) * _DAY - 1)

    def window_of(micros: int) -> tuple[int, int]:
        bounds = bounds_of(micros // _DAY)
        index = bisect_right(bounds, micros)
        return bounds[index - 1], bounds[index]

    return window_of


def _bounds(calendar: Calendar, earliest: int, latest: int) -> list[int]:
    return [to_micros(start) for start in calendar.bounds(from_micros(earliest), from_micros(latest))]
