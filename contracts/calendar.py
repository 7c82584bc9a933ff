"""Calendars: which tumbling window a moment belongs to, in one civil time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

CalendarKind = Literal["1-day", "30-days", "calendar-month"]

EPOCH = date(1970, 1, 1)
# Outside of it a `sold_at` is an impossible value: no shop sold before, and no calendar needs rows for later.
FIRST_DAY = date(1900, 1, 1)
LAST_DAY = date(2200, 1, 1)


@dataclass(frozen=True)
class Window:
    """Half-open `[start, end)`, both aware UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Calendar:
    """Tumbling windows whose bounds are civil midnights of `time_zone`.

    A window is the time between two neighbouring bounds, so every moment is in exactly one, whatever the clocks did.
    """

    kind: CalendarKind
    time_zone: str

    def window_of(self, day: date) -> Window:
        """The window that holds the civil day. Raises ValueError outside of 1900 to 2199."""
        if not FIRST_DAY <= day < LAST_DAY:
            raise ValueError(f"{day} is not between {FIRST_DAY} and {LAST_DAY}")
        first = self._first_day(day)
        return Window(_midnight(first, self.time_zone), _midnight(self._next(first), self.time_zone))

    def bounds(self, earliest: datetime, latest: datetime) -> list[datetime]:
        """Ascending window starts from the one at or before `earliest` to the one after `latest`."""
        # A day of slack on either side: a UTC date and a civil date differ by at most one.
        first = self._first_day(earliest.date() - timedelta(days=1))
        stop = latest.date() + timedelta(days=1)
        starts = [first]
        while starts[-1] <= stop:
            starts.append(self._next(starts[-1]))
        return [_midnight(day, self.time_zone) for day in starts]

    def _first_day(self, day: date) -> date:
        match self.kind:
            case "1-day":
                return day
            case "30-days":
                return day - timedelta(days=(day - EPOCH).days % 30)
            case "calendar-month":
                return day.replace(day=1)

    def _next(self, first: date) -> date:
        match self.kind:
            case "1-day":
                return first + timedelta(days=1)
            case "30-days":
                return first + timedelta(days=30)
            case "calendar-month":
                return (first + timedelta(days=31)).replace(day=1)


# A month of city windows in use at once, with room for a replay over years.
@lru_cache(maxsize=200_000)
def _midnight(day: date, time_zone: str) -> datetime:
    """The first moment of the civil day, in UTC; where clocks skip midnight, the moment of the skip."""
    zone = ZoneInfo(time_zone)
    # fold=0 takes the earlier of two midnights, and places a skipped one at the moment of the skip.
    return datetime(day.year, day.month, day.day, tzinfo=zone, fold=0).astimezone(UTC)
