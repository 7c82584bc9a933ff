"""Parsing of moments: ISO 8601 with the year first, in the variants that programs write.

A `T` or one blank, seconds that may be missing, a fraction of any length behind a point or comma, the offset of the
time zone or a word for UTC. A fraction is cut to microseconds, which puts no moment into another window.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from contracts.calendar import FIRST_DAY, LAST_DAY
from contracts.texts import Refused, called, normal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EXAMPLE = "2026-01-31T23:59:59.5+01:00"
# ASCII digits: \d matches any script's.
_moment = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:[.,]([0-9]+))?)?"
    r" ?(?:Z|z|UTC|GMT|([+-])(0[0-9]|1[0-5])(?::?([0-5][0-9]))?)?"
).fullmatch
_HINTS = tuple(
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in (
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "it has no time of day"),
        (r"[0-9]{1,2}[-./ ]([0-9]{1,2}|[a-z]+)[-./ ][0-9]{2,4}.*", "the year stands first, then the month"),
        (r"[0-9]{4}[-./][0-9]{1,2}[-./][0-9]{1,2}.*[ap]\.?m\.?", "hours count to 23"),
        (r".*[Tt ]24:.*", "24:00 is 00:00 of the next day"),
        (r".*:[0-9]{2}:60.*", "no minute has a second 60 here"),
        (r"[0-9]+([.,][0-9]+)?", "it is a bare number"),
    )
)


def micros_of(day: date) -> int:
    """The beginning of a day in UTC."""
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - EPOCH) // MICROSECOND


FIRST_MICROS, BEHIND_MICROS = micros_of(FIRST_DAY), micros_of(LAST_DAY)


def micros(text: str) -> int:
    """Microseconds since the Unix epoch; without an offset the moment is in UTC. Raises Refused."""
    text = normal(text)
    if not text:
        raise Refused("is empty")
    match = _moment(text)
    if match is None:
        raise Refused(f"is no time like {EXAMPLE}{_hint(text)}")
    day, hour, minute, second, fraction, sign, hours, minutes = match.groups("")
    try:
        at = (date.fromisoformat(day) - EPOCH.date()).days
    except ValueError:
        raise Refused(f"is no time like {EXAMPLE}: there is no day {day}") from None
    offset = (int(hours or 0) * 60 + int(minutes or 0)) * (-1 if sign == "-" else 1)
    seconds = ((at * 24 + int(hour)) * 60 + int(minute) - offset) * 60 + int(second or 0)
    value = seconds * 1_000_000 + int(fraction[:6].ljust(6, "0"))
    if not FIRST_MICROS <= value < BEHIND_MICROS:
        raise Refused(f"is not between {FIRST_DAY} and {LAST_DAY}")
    return value


def _hint(text: str) -> str:
    foreign = next((char for char in text if not char.isascii()), None)
    if foreign is not None:
        return f": it holds {called(foreign)}"
    return next((f": {hint}" for pattern, hint in _HINTS if pattern.fullmatch(text)), "")
