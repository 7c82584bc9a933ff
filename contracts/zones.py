"""Time zone rules of windows: when the days of a zone begin.

Governments change them, and machines get the change with their updates, each at another time. A generation keeps the
rules that it was created with, so its windows are the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

# Those of every window that a moment of 1900 to 2199 may be in, and of the one after.
_FIRST = date(1899, 11, 1).toordinal()
_LAST = date(2200, 4, 1).toordinal()


def known_zone(name: str) -> str:
    """The name, if it is one of a zone. Raises ValueError with one line for the user."""
    try:
        ZoneInfo(name)
    # A folder of zones, like Europe, cannot be read as one.
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name}; Europe/Berlin is one") from error
    return name


@dataclass(frozen=True)
class ZoneRules:
    """When the civil days of a zone begin. From each of `days` (ordinals) on, midnight is `offsets` seconds ahead of
    UTC's.
    """

    time_zone: str
    days: tuple[int, ...]
    offsets: tuple[int, ...]

    @classmethod
    def of_machine(cls, time_zone: str) -> ZoneRules:
        """This machine's rules: from its own zone files, or else from the installed `tzdata`."""
        return _of_machine(time_zone)

    @classmethod
    def from_json(cls, text: str) -> ZoneRules:
        rules = json.loads(text)
        return cls(rules["time_zone"], tuple(rules["days"]), tuple(rules["offsets"]))

    def to_json(self) -> str:
        """Always the same text for the same rules."""
        rules = {"time_zone": self.time_zone, "days": self.days, "offsets": self.offsets}
        return json.dumps(rules, separators=(",", ":"))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON, as PostgreSQL computes it too."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def is_current(self) -> bool:
        """Whether this machine has the same rules; not if it lacks the zone."""
        return self.fingerprint == fingerprint_here(self.time_zone)

    def midnight(self, day: date) -> datetime:
        """The first moment of the civil day, in UTC; where clocks skip midnight, the moment of the skip."""
        known = self._midnights.get(day)
        if known is None:
            offset = self.offsets[max(0, bisect_right(self.days, day.toordinal()) - 1)]
            known = datetime.combine(day, time(), UTC) - timedelta(seconds=offset)
            self._midnights[day] = known
        return known

    def moment(self, civil: datetime) -> datetime:
        """A moment without a zone as the zone's clocks show it, in UTC; one with a zone as it is."""
        if civil.tzinfo is not None:
            return civil
        if civil.time() == time():
            return self.midnight(civil.date())
        return civil.replace(tzinfo=ZoneInfo(self.time_zone)).astimezone(UTC)

    @cached_property
    def _midnights(self) -> dict[date, datetime]:
        """Cache of `midnight`: a replay needs the same years with every poll."""
        return {}


def fingerprint_here(time_zone: str) -> str | None:
    """The fingerprint of this machine's rules; None if it lacks the zone."""
    try:
        return ZoneRules.of_machine(known_zone(time_zone)).fingerprint
    except ValueError:
        return None


# Computed once, at a tenth of a second: a process has the rules that it began with.
@lru_cache(maxsize=64)
def _of_machine(time_zone: str) -> ZoneRules:
    # fold=0 takes the earlier of two midnights, and places a skipped one at the moment of the skip.
    midnight = datetime.combine(date.fromordinal(_FIRST), time(), ZoneInfo(time_zone))
    day, ahead = timedelta(days=1), None
    days: list[int] = []
    offsets: list[int] = []
    for ordinal in range(_FIRST, _LAST):
        if (now := midnight.utcoffset()) != ahead:
            ahead = now
            assert ahead is not None
            days.append(ordinal)
            # Zone files have no fractions of a second.
            offsets.append(ahead // timedelta(seconds=1))
        midnight += day
    return ZoneRules(time_zone, tuple(days), tuple(offsets))
