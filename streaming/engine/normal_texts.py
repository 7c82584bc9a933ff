"""Normalises the texts of events, so that events of older releases group with new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from contracts import texts

# Events for which no expression is worth its cost.
FEW = 100


@dataclass(frozen=True)
class NormalTexts:
    """Which texts are names and which descriptions: a name with invisible characters becomes null."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...] = ()

    def readers(self, columns: Sequence[str]) -> dict[str, Callable[[str], str | None]]:
        """How the texts of each of these columns are read; for a row of a few of them, or for odd ones of many."""
        known = dict.fromkeys(self.names, _name) | dict.fromkeys(self.descriptions, _description)
        return {name: known[name] for name in columns if name in known}

    def of_columns(self, events: pl.DataFrame) -> pl.DataFrame:
        readers = self.readers(events.columns)
        joined = _joined(events, list(readers))
        odd = [name for name, texts_ in zip(readers, joined, strict=True) if _is_odd(texts_)]
        return events.with_columns(_read(events[name], readers[name]) for name in odd) if odd else events


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
