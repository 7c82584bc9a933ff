"""Calendars: which tumbling window a moment belongs to, in one civil time zone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from math import isfinite
from typing import Literal

from contracts.zones import ZoneRules

CalendarKind = Literal["1-day", "30-days", "calendar-month"]

EPOCH = date(1970, 1, 1)
# Outside of it a `sold_at` is an impossible value: no shop sold before, and no calendar needs rows for later.
FIRST_DAY = date(1900, 1, 1)
LAST_DAY = date(2200, 1, 1)
# A window that is not final a year after its end is of no use.
MOST_GRACE = timedelta(days=366)


def checked_grace(grace: timedelta) -> timedelta:
    """The grace, if it is in range. Raises ValueError with one line for the user."""
    if not timedelta(0) <= grace <= MOST_GRACE:
        most = MOST_GRACE // timedelta(seconds=1)
        raise ValueError(f"a grace is at least 0 and at most {most} seconds ({MOST_GRACE.days} days)")
    return grace


def grace_of(seconds: float) -> timedelta:
    """Seconds as a grace. Raises ValueError, also for a value that is not finite."""
    # A timedelta would overflow, and a NaN compares with nothing.
    if not isfinite(seconds) or abs(seconds) > 2 * MOST_GRACE.total_seconds():
        checked_grace(timedelta.max)
    return checked_grace(timedelta(seconds=seconds))


@dataclass(frozen=True)
class Window:
    """Half-open `[start, end)`, both aware UTC. A civil day that a zone left out has an empty one."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Calendar:
    """Tumbling windows whose bounds are civil midnights of `time_zone`.

    A window is the time between two neighbouring bounds, so every moment is in exactly one, whatever the clocks did.
    The midnights are those of `rules`: the generation's, or by default this machine's.
    """

    kind: CalendarKind
    time_zone: str
    rules: ZoneRules | None = field(default=None, compare=False)

    @cached_property
    def zone(self) -> ZoneRules:
        return self.rules or ZoneRules.of_machine(self.time_zone)

    def window_of(self, day: date) -> Window:
        """The window that holds the civil day. Raises ValueError outside of 1900 to 2199."""
        if not FIRST_DAY <= day < LAST_DAY:
            raise ValueError(f"{day} is not between {FIRST_DAY} and {LAST_DAY}")
        first = self._first_day(day)
        return Window(self.zone.midnight(first), self.zone.midnight(self._next(first)))

    def window_at(self, moment: datetime) -> Window:
        """The window that holds the moment."""
        bounds = pairwise(self.bounds(moment, moment))
        return next(Window(start, end) for start, end in bounds if start <= moment < end)

    def days(self, earliest: datetime, latest: datetime) -> list[str]:
        """The first civil days of the windows from `earliest` to `latest`, ascending."""
        first, stop = self._first_day(earliest.date() - timedelta(days=1)), latest.date() + timedelta(days=1)
        days = []
        while first <= stop:
            after = self._next(first)
            start, end = self.zone.midnight(first), self.zone.midnight(after)
            # A day that the zone left out is no window.
            if start <= latest and end > earliest and start < end:
                days.append(first.isoformat())
            first = after
        return days

    def bounds(self, earliest: datetime, latest: datetime) -> list[datetime]:
        """Ascending window starts from the one at or before `earliest` to the one after `latest`."""
        # A day of slack on either side: a UTC date and a civil date differ by at most one.
        first = self._first_day(earliest.date() - timedelta(days=1))
        stop = latest.date() + timedelta(days=1)
        starts = [first]
        while starts[-1] <= stop:
            starts.append(self._next(starts[-1]))
        return [self.zone.midnight(day) for day in starts]

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
