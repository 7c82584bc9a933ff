"""Normalises columns of texts: what is normal already, nearly all, is not looked at one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from contracts import texts
from streaming.engine.normal_texts import NormalTexts


def normalised(events: pl.DataFrame, normal: NormalTexts) -> pl.DataFrame:
    readers = normal.readers(events.columns)
    joined = _joined(events, list(readers))
    odd = [name for name, found in zip(readers, joined, strict=True) if _is_odd(found)]
    return events.with_columns(_read(events[name], readers[name]) for name in odd) if odd else events


def _joined(events: pl.DataFrame, names: Sequence[str]) -> Sequence[str]:
    """The texts of each column, joined by `|`."""
    return events.select(pl.col(names).str.join("|")).row(0)


def _is_odd(joined: str) -> bool:
    """Whether a whole column needs normalising; costs as much as a search for NUL."""
    return not texts.are_plain(joined.encode())


def _read(column: pl.Series, read: Callable[[str], str | None]) -> pl.Series:
    odd = (~column.str.contains(texts.PLAIN)).arg_true()
    return column.scatter(odd, pl.Series([read(text) for text in column.gather(odd)], dtype=pl.String))
