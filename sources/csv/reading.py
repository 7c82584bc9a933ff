"""A file of sales → columns of sound rows and the reasons of the others, a block at a time, by pandas.

A row's fate depends on the row alone, never on where a block begins.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import polars as pl

from sources.csv import rows
from sources.csv.lines import MAX_RECORD_BYTES, Bad, Block, Place, blocks
from sources.csv.quoting import SEPARATORS
from sources.csv.rows import CELLS, COLUMNS, OPERATION, SCHEMA

NO_ROWS = pl.DataFrame(schema=SCHEMA)
_BOM = b"\xef\xbb\xbf"
_WIDE = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK": "a ZIP archive or a spreadsheet",
    b"\x1f\x8b": "gzip",
}


class NoCsv(ValueError):
    """A file that is no CSV of sales at all; the message says why."""


@dataclass(frozen=True)
class Head:
    """What the first line says: the separator, the names, and where the rows begin."""

    separator: str
    names: tuple[str, ...]
    body: Place

    @property
    def unknown(self) -> tuple[str, ...]:
        """Columns that are passed over."""
        return tuple(name for name in self.names if name not in CELLS)


@dataclass(frozen=True)
class Part:
    """Some rows: `good` as `rows.SCHEMA` has them, in the file's order; `end` is the place behind all of them."""

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


def head(fd: int) -> Head:
    """Read the first line. Raises NoCsv."""
    data = os.pread(fd, MAX_RECORD_BYTES, 0)
    if not data:
        raise NoCsv("the file is empty")
    for mark, what in _WIDE.items():
        if data.startswith(mark):
            raise NoCsv(f"the file is {what}; save it as CSV in UTF-8")
    offset = len(_BOM) if data.startswith(_BOM) else 0
    line, feed, _ = data[offset:].partition(b"\n")
    number = 1
    while feed and not line.strip():
        offset, number = offset + len(line) + 1, number + 1
        line, feed, _ = data[offset:].partition(b"\n")
    if not feed and len(data) == MAX_RECORD_BYTES:
        raise NoCsv(f"the first line is longer than {MAX_RECORD_BYTES} bytes")
    text = line.removesuffix(b"\r").decode(errors="replace")
    if "\r" in text:
        raise NoCsv("its lines end in a carriage return alone; save it with line feeds")
    if "\0" in text:
        raise NoCsv("the first line holds a NUL")
    separator, names = _names(text)
    return Head(separator, names, Place(offset + len(line) + 1, number + 1))


def _names(text: str) -> tuple[str, tuple[str, ...]]:
    missing: list[str] = []
    for separator in SEPARATORS:
        names = tuple(name.strip().lower() for name in next(csv.reader([text], delimiter=separator), []))
        lacks = [name for name in COLUMNS if name not in names]
        if not lacks:
            twice = sorted(
                {name for name in names if names.count(name) > 1 and name in (*COLUMNS, OPERATION)}
            )
            if twice:
                raise NoCsv(f"the first line names {', '.join(twice)} twice")
            return separator, names
        if not missing or len(lacks) < len(missing):
            missing = lacks
    raise NoCsv(f"the first line does not name the column{'s' * (len(missing) > 1)} {', '.join(missing)}")


def parts(fd: int, found: Head, place: Place, decimal_comma: bool) -> Iterator[Part]:
    """The file from a place on (`found.body`, or the end of a part before), each row once."""
    for block in blocks(fd, place, found.separator, len(found.names)):
        yield _part(block, found, decimal_comma)


def _part(block: Block, found: Head, decimal_comma: bool) -> Part:
    texts = _parse(block.text, found)
    if texts.height != len(block.lines):
        # What is counted here and what pandas reads are the same by construction; a difference would be a row lost.
        raise AssertionError(f"pandas found {texts.height} rows in {len(block.lines)} records")
    style = rows.style_of(found.separator, decimal_comma)
    checked = rows.check(texts.with_columns(line=pl.Series(block.lines, dtype=pl.Int64)), style)
    bad = block.bad + [
        Bad(int(block.lines[row]), reason, block.shown(row), tuple(more))
        for row, (reason, *more) in checked.refused
    ]
    return Part(checked.good, sorted(bad, key=lambda one: one.line), block.end, block)


def _parse(text: bytes, found: Head) -> pl.DataFrame:
    """The cells as they are, texts all of them."""
    wanted = [number for number, name in enumerate(found.names) if name in CELLS]
    # A first line of our own: pandas drops what looks like a byte order mark at the very beginning.
    first = found.separator.join("h" * len(found.names)).encode() + b"\n"
    frame = pd.read_csv(
        io.BytesIO(first + text),
        sep=found.separator,
        header=0,
        names=list(range(len(found.names))),
        usecols=wanted,
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
