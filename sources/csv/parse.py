"""A file of sales → columns of sound rows and the reasons of the others, a block at a time, by pandas.

The result of a row depends on the row alone, never on where a block begins.
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
        """The same without good rows whose texts, the key counted twice, exceed `most` bytes, the limit of a record."""
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


def parts(fd: int, head: Head, place: Place, decimal_comma: bool) -> Iterator[Part]:
    """The file from a place on (`head.body`, or the end of a part before), each row once."""
    for block in blocks(fd, place, head.dialect, len(head.names)):
        yield _part(block, head, decimal_comma)


def _part(block: Block, head: Head, decimal_comma: bool) -> Part:
    texts = _parse(block.text, head)
    if texts.height != len(block.lines):
        # Both counts are equal by construction; a difference would be a lost row.
        raise AssertionError(f"pandas read {texts.height} rows in {len(block.lines)} records")
    style = validate.style_of(head.dialect.separator, decimal_comma)
    checked = validate.check(texts.with_columns(line=pl.Series(block.lines, dtype=pl.Int64)), style)
    bad = block.bad + [
        Bad(int(block.lines[row]), reason, block.shown(row), tuple(more))
        for row, (reason, *more) in checked.refused
    ]
    return Part(checked.good, sorted(bad, key=lambda one: one.line), block.end, block)


def _parse(text: bytes, head: Head) -> pl.DataFrame:
    """The cells as texts."""
    wanted = [number for number, name in enumerate(head.names) if name in CELLS]
    separator, cells = head.dialect.separator, len(head.names) + head.dialect.trailing
    # A first line of our own: pandas drops what looks like a byte order mark at the very beginning.
    first = separator.join("h" * cells).encode() + b"\n"
    frame = pd.read_csv(
        io.BytesIO(first + text),
        sep=separator,
        header=0,
        names=list(range(cells)),
        usecols=wanted,
        skipinitialspace=head.dialect.skips_blanks,
        index_col=False,
        dtype=object,
        na_filter=False,
        skip_blank_lines=False,
        low_memory=False,
        engine="c",
    )
    texts = {head.names[number]: frame[number].to_numpy() for number in wanted}
    return pl.DataFrame(
        {name: pl.Series(texts[name], dtype=dtype) for name, dtype in CELLS.items() if name in texts}
    )
