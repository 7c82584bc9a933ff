"""A file of sales → columns of sound rows and the reasons of the others, a block at a time.

The result of a row depends on the row alone, never on where a block begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd
import polars as pl

from sources.csv import validate
from sources.csv.heads import Head, NoCsv, head
from sources.csv.records import Bad, Place, Record, blocks
from sources.csv.validate import CELLS, SCHEMA

__all__ = ["NO_ROWS", "Head", "NoCsv", "Part", "head", "parts"]

NO_ROWS = pl.DataFrame(schema=SCHEMA)


@dataclass(frozen=True)
class Part:
    """Some rows: `good` as `validate.SCHEMA` has them, in the file's order; `end` is the place behind all of them.

    `raw`: how each row looks in the file, by its line.
    """

    good: pl.DataFrame
    bad: list[Bad]
    end: Place
    raw: dict[int, bytes]

    def fitting(self, most: int) -> Part:
        """The same without good rows whose texts, the key counted twice, exceed `most` bytes, the limit of a record."""
        texts = [name for name, kind in self.good.schema.items() if kind == pl.String]
        size = pl.sum_horizontal(pl.col(name).str.len_bytes() for name in (*texts, "sale_id"))
        large = self.good.filter(size > most)
        if large.is_empty():
            return self
        reason = f"is larger than {most} bytes, which is what max.message.bytes of the topic leaves"
        bad = [Bad(line, reason, self.raw[line]) for line in large["line"]]
        return replace(self, good=self.good.filter(size <= most), bad=self.bad + bad)

    @property
    def rows(self) -> int:
        return self.good.height + len(self.bad)


def parts(fd: int, head: Head, place: Place, decimal_comma: bool) -> Iterator[Part]:
    """The file from a place on (`head.body`, or the end of a part before), each row once."""
    style = validate.style_of(head.dialect.separator, decimal_comma)
    for block in blocks(fd, place, head.dialect, len(head.names)):
        rows = [record for record in block if record.cells]
        checked = validate.check(_frame(rows, head), style)
        bad = [Bad(record.line, record.reason, record.raw) for record in block if record.reason]
        bad += [
            Bad(rows[row].line, reason, rows[row].raw, tuple(more))
            for row, (reason, *more) in checked.refused
        ]
        bad.sort(key=lambda one: one.line)
        yield Part(checked.good, bad, block[-1].end, {row.line: row.raw for row in rows})


def _frame(rows: list[Record], head: Head) -> pl.DataFrame:
    """The cells of the known columns as texts, and the lines."""
    frame = pd.DataFrame([row.cells for row in rows], columns=list(head.names), dtype=object)
    cells = {name: pl.Series(frame[name].to_numpy(), dtype=CELLS[name]) for name in CELLS if name in frame}
    return pl.DataFrame(cells | {"line": pl.Series([row.line for row in rows], dtype=pl.Int64)})
