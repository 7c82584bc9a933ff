"""A file of sales → columns of sound rows and the reasons of the others, a block at a time, by pandas.

A row's fate depends on the row alone, never on where a block begins.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import polars as pl

from sources.csv import validate
from sources.csv.heads import Head, NoCsv, head
from sources.csv.records import Bad, Block, Place, blocks
from sources.csv.validate import CELLS, SCHEMA

__all__ = ["NO_ROWS", "Head", "NoCsv", "Part", "head", "parts"]

NO_ROWS = pl.DataFrame(schema=SCHEMA)


@dataclass(frozen=True)
class Part:
    """Some rows: `good` as `validate.SCHEMA` has them, in the file's order; `end` is the place behind all of them."""

    good: pl.DataFrame
    bad: list[Bad]
    end: Place
    _block: Block

    def shown(self, line: int) -> bytes:
        """How a good row looks in the file."""
        return self._block.shown(int(np.searchsorted(self._block.lines, line)))

    def fitting(self, most: int) -> Part:
        """The same without good rows whose texts are of more bytes, the key's twice: no record could hold them."""
        texts = [name for name, kind in self.good.schema.items() if kind == pl.String]
        size = pl.sum_horizontal(pl.col(name).str.len_bytes() for name in (*texts, "sale_id"))
        large = self.good.filter(size > most)
        if large.is_empty():
            return self
        reason = f"is larger than {most} bytes, which is what max.message.bytes of the topic leaves"
        bad = [Bad(line, reason, self.shown(line)) for line in large["line"]]
        return replace(self, good=self.good.filter(size <= most), bad=self.bad + bad)

    @property
    def rows(self) -> int:
        return self.good.height + len(self.bad)


def parts(fd: int, found: Head, place: Place, decimal_comma: bool) -> Iterator[Part]:
    """The file from a place on (`found.body`, or the end of a part before), each row once."""
    for block in blocks(fd, place, found.dialect, len(found.names)):
        yield _part(block, found, decimal_comma)


def _part(block: Block, found: Head, decimal_comma: bool) -> Part:
    texts = _parse(block.text, found)
    if texts.height != len(block.lines):
        # What is counted here and what pandas reads are the same by construction; a difference would be a row lost.
        raise AssertionError(f"pandas found {texts.height} rows in {len(block.lines)} records")
    style = validate.style_of(found.dialect.separator, decimal_comma)
    checked = validate.check(texts.with_columns(line=pl.Series(block.lines, dtype=pl.Int64)), style)
    bad = block.bad + [
        Bad(int(block.lines[row]), reason, block.shown(row), tuple(more))
        for row, (reason, *more) in checked.refused
    ]
    return Part(checked.good, sorted(bad, key=lambda one: one.line), block.end, block)


def _parse(text: bytes, found: Head) -> pl.DataFrame:
    """The cells as they are, texts all of them."""
    wanted = [number for number, name in enumerate(found.names) if name in CELLS]
    separator, cells = found.dialect.separator, len(found.names) + found.dialect.trailing
    # A first line of our own: pandas drops what looks like a byte order mark at the very beginning.
    first = separator.join("h" * cells).encode() + b"\n"
    frame = pd.read_csv(
        io.BytesIO(first + text),
        sep=separator,
        header=0,
        names=list(range(cells)),
        usecols=wanted,
        skipinitialspace=found.dialect.skips_blanks,
        index_col=False,
        dtype=object,
        na_filter=False,
        skip_blank_lines=False,
        low_memory=False,
        engine="c",
    )
    texts = {found.names[number]: frame[number].to_numpy() for number in wanted}
    return pl.DataFrame(
        {name: pl.Series(texts[name], dtype=dtype) for name, dtype in CELLS.items() if name in texts}
    )
