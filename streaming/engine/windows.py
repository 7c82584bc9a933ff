"""Windows of many events at once, by one binary search in the calendar's bounds."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from contracts.calendar import Calendar
from contracts.times import EPOCH

MICROSECOND = timedelta(microseconds=1)


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
    earliest, latest = from_micros(int(moments.min())), from_micros(int(moments.max()))
    starts = [to_micros(start) for start in calendar.bounds(earliest, latest)]
    bounds: NDArray[np.int64] = np.array(starts, dtype=np.int64)
    index = np.searchsorted(bounds, moments, side="right")
    return pl.DataFrame({"window_start": bounds[index - 1], "window_end": bounds[index]})
