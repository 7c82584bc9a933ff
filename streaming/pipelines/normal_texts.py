"""Normalises the texts of events, so that events of older releases group with new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from contracts import texts
from streaming.engine.pipeline import Check

# Events for which no expression is worth its cost.
FEW = 100


@dataclass(frozen=True)
class NormalTexts:
    """Normalises the texts of events: a name with invisible characters becomes null, for `name_checks`.

    A class and not a closure: a pipeline can be pickled, for a process of its own.
    """

    names: tuple[str, ...]
    descriptions: tuple[str, ...] = ()

    def __call__(self, events: pl.DataFrame) -> pl.DataFrame:
        readers = dict.fromkeys(self.names, _name) | dict.fromkeys(self.descriptions, _description)
        there = [name for name in events.columns if name in readers]
        odd = [name for name, joined in zip(there, _joined(events, there), strict=True) if _is_odd(joined)]
        return events.with_columns(_read(events[name], readers[name]) for name in odd) if odd else events


def name_checks(column: str, most: int = texts.MOST_NAME_BYTES) -> tuple[Check, ...]:
    length = pl.col(column).str.len_bytes()
    return (
        Check(f"{column} holds a control or invisible character", pl.col(column).is_not_null(), (column,)),
        Check(f"{column} is empty", length > 0, (column,)),
        Check(f"{column} is longer than {most} bytes", length <= most, (column,)),
    )


def _joined(events: pl.DataFrame, names: Sequence[str]) -> Sequence[str]:
    """The texts of each column, joined by `|`. An expression costs more than a few texts do."""
    if events.height <= FEW:
        return ["|".join(events[name].to_list()) for name in names]
    return events.select(pl.col(names).str.join("|")).row(0)


def _is_odd(joined: str) -> bool:
    """Whether a whole column needs normalising; costs as much as a search for NUL."""
    return not texts.are_plain(joined.encode())


def _read(column: pl.Series, read: Callable[[str], str | None]) -> pl.Series:
    odd = (~column.str.contains(texts.PLAIN)).arg_true()
    return column.scatter(odd, pl.Series([read(text) for text in column.gather(odd)], dtype=pl.String))


@texts.kept
def _name(text: str) -> str | None:
    try:
        return texts.visible(text)
    except texts.Refused:
        return None


_description = texts.kept(texts.description)
