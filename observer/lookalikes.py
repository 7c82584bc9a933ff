"""Cities that are probably one: names that differ by case, accents, width, script, blanks or punctuation alone.

The rule for texts normalises spellings; whether `Koln` is `Köln` only a person can decide.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Engine, text

# Of the newest windows: a city without sales since is not worth a correction.
DAYS = 31
MOST_SHOWN = 20
# Letters of other scripts that look like Latin ones, small or large; after the case was folded.
_CONFUSABLE = str.maketrans(
    "абвеіјкмнорѕтухһԁԛԝαβειικμορτυχζ",
    "aбbeijkmhopstyxhdqwabeiikmoptuxz",
)
_NAMES = text(
    "SELECT DISTINCT c.country, c.city FROM city_totals c "
    "JOIN active_generations a ON a.pipeline = 'top-sales-by-city' AND a.generation = c.generation "
    "WHERE c.sales_count <> 0 AND c.window_start > (SELECT max(window_start) FROM city_totals n "
    "WHERE n.generation = c.generation AND n.window_start <= now()) - make_interval(days => :days)"
)


@dataclass(frozen=True)
class LookAlikes:
    """How many sets of names look alike, the first of them, and among how many names."""

    count: int = 0
    first: tuple[str, ...] = ()
    names: int = 0


def skeleton(name: str) -> str:
    """What is left of a name without all by which names that look alike differ."""
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", name).casefold())
    # Marks, format characters, blanks, punctuation.
    kept = "".join(char for char in folded if unicodedata.category(char)[0] not in "MCZP")
    return kept.translate(_CONFUSABLE) or name


def alike(names: Iterable[tuple[str, ...]]) -> list[list[tuple[str, ...]]]:
    """Those of the names that look like another one, together with it."""
    by_skeleton: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name in sorted(set(names)):
        by_skeleton.setdefault(tuple(map(skeleton, name)), []).append(name)
    return [together for together in by_skeleton.values() if len(together) > 1]


def look_alikes(results: Engine) -> LookAlikes:
    """Among the cities of the newest windows that have begun; costs as much as they have groups."""
    with results.connect() as connection:
        names = [(row.country, row.city) for row in connection.execute(_NAMES, {"days": DAYS})]
    sets = alike(names)
    shown = (" = ".join("/".join(map(ascii_shown, name)) for name in together) for together in sets)
    return LookAlikes(len(sets), tuple(shown)[:MOST_SHOWN], len(names))


def ascii_shown(name: str) -> str:
    """The name, with the code points of its characters that are not ASCII."""
    odd = [f"U+{ord(char):04X}" for char in name if not char.isascii()]
    return f"{name} ({' '.join(odd)})" if odd else name
