"""A file's bytes → blocks of its records with their true line numbers, in flat memory whatever the file holds.

A record is what the csv module reads, line by line. One that cannot be taken has a reason: it is too long, not UTF-8,
has a NUL or a lone carriage return, an open quote, or another number of fields than the header. A carriage return that
ends no line is a character like any other, so that its record is split off, and refused. Two before a line feed are
one: translating line ends twice makes them.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sources.csv.wholeness import DOS_END

# What is read, parsed and written in one go: some ten thousand rows, so that a Kafka transaction is about 50 ms.
BLOCK_BYTES = 1 << 20
# Of a block, good, bad or blank: rows of two bytes would be half a million dead letters in one transaction.
MOST_RECORDS = 20_000
# A row is ten short values. A longer record is none, and is never held in memory as a whole.
MAX_RECORD_BYTES = 1 << 16
# What a dead letter shows of a row.
SHOWN_BYTES = 10_000
# In the order in which they are tried.
SEPARATORS = (",", ";", "\t", "|")
BOM = b"\xef\xbb\xbf"
# A byte that is not UTF-8, as "surrogateescape" decodes it.
UNDECODABLE = re.compile("[\udc80-\udcff]")
_LONE_RETURN = re.compile(rb"\r(?!\r?\n)")


@dataclass(frozen=True)
class Dialect:
    """How a file writes its records.

    `skips_blanks`: blanks behind a separator are no part of the cell, so that a quote behind them opens one.
    `trailing`: a record ends in a separator that separates nothing. `header`: the line that names the columns, which
    stands again where files were joined.
    """

    separator: str
    skips_blanks: bool = False
    trailing: bool = False
    header: bytes = b""


class Place(NamedTuple):
    """A place between two records: the offset of the next one, and the number of its line, from 1."""

    offset: int
    line: int


@dataclass(frozen=True)
class Bad:
    """A record that cannot be taken: its first line, why, how it begins, and what else is wrong with it."""

    line: int
    reason: str
    raw: bytes
    more: tuple[str, ...] = ()


class Record(NamedTuple):
    """A record, how it begins, and the place behind it. Without cells it is blank, or has a reason to be refused."""

    line: int
    raw: bytes
    cells: list[str]
    reason: str
    end: Place


# A line of a file, of a longer one than MAX_RECORD_BYTES its beginning, and the place behind it.
Line = tuple[bytes, Place]


def blocks(fd: int, place: Place, dialect: Dialect, columns: int) -> Iterator[list[Record]]:
    """All records from the place on."""
    block: list[Record] = []
    for record in _records(fd, place, dialect, columns):
        block.append(record)
        if len(block) == MOST_RECORDS or record.end.offset - place.offset >= BLOCK_BYTES:
            yield block
            block, place = [], record.end
    if block:
        yield block


def lines(fd: int, place: Place) -> Iterator[Line]:
    """All lines from the place on; the last one may lack its line feed in the file."""
    offset, number = place.offset, place.line
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(offset)
        while raw := file.readline(MAX_RECORD_BYTES + 1):
            piece = raw
            while piece:
                offset += len(piece)
                piece = b"" if piece.endswith(b"\n") else file.readline(BLOCK_BYTES)
            number += 1
            yield raw if raw.endswith(b"\n") else raw + b"\n", Place(offset, number)


def _records(fd: int, place: Place, dialect: Dialect, columns: int) -> Iterator[Record]:
    ahead = _Ahead(lines(fd, place), dialect)
    for raw, end in ahead:
        cells, reason = ahead.cells(raw), ""
        if len(raw) > MAX_RECORD_BYTES:
            reason = f"is longer than {MAX_RECORD_BYTES} bytes"
        elif cells is None and (rest := ahead.closing(place.offset + MAX_RECORD_BYTES)):
            raw, end = raw + b"".join(line for line, _ in rest), rest[-1][1]
            cells = ahead.cells(raw)
        elif cells is None:
            reason = f"opens a quote that is not closed within {MAX_RECORD_BYTES} bytes or before the end"
        cells, reason = ([], reason) if reason else _judge(raw, cells or [], dialect, columns)
        yield Record(place.line, raw[:SHOWN_BYTES], cells, reason, end)
        place = end


class _Ahead:
    """The lines of a file, some of them read ahead to see which one closes a quote.

    Each is looked at once for that, so the time grows with the file and with nothing else.
    """

    def __init__(self, rest: Iterator[Line], dialect: Dialect) -> None:
        self._rest = rest
        self._read: deque[Line] = deque()
        # Where those of them end that close a quote which is open at their beginning.
        self._closing: deque[Place] = deque()
        self._grammar = csv.reader(
            (), delimiter=dialect.separator, skipinitialspace=dialect.skips_blanks
        ).dialect

    def __iter__(self) -> Iterator[Line]:
        while line := self._read.popleft() if self._read else next(self._rest, None):
            yield line

    def cells(self, raw: bytes) -> list[str] | None:
        """The cells of some lines as one record; None if a quote is open behind them."""
        if b"\r" in raw:
            raw = _LONE_RETURN.sub(b"?", raw).replace(b"\r\r\n", b"\r\n")
        texts = [*io.StringIO(raw.decode(errors="surrogateescape"), newline="\n"), ""]
        reader = csv.reader(texts, self._grammar)
        cells = next(reader)
        # With an open quote the reader comes to the last one.
        return cells if reader.line_num < len(texts) else None

    def closing(self, offset: int) -> list[Line]:
        """Take the lines up to the first that closes a quote; none if it does not end up to the offset."""
        while (not self._read or self._read[-1][1].offset <= offset) and (line := next(self._rest, None)):
            self._read.append(line)
            if b'"' in line[0] and self.cells(b'"' + line[0]) is not None:
                self._closing.append(line[1])
        while self._closing and (not self._read or self._closing[0] < self._read[0][1]):
            self._closing.popleft()
        if not self._closing or self._closing[0].offset > offset:
            return []
        return [self._read.popleft() for _ in range(self._closing[0].line - self._read[0][1].line + 1)]


def _judge(raw: bytes, cells: list[str], dialect: Dialect, columns: int) -> tuple[list[str], str]:
    """The cells, none of a blank record; or the reason to refuse it."""
    if b"\0" in raw:
        return [], "holds a NUL"
    if b"\r" in raw and _LONE_RETURN.search(raw):
        return [], "holds a carriage return that ends no line"
    is_header = raw.rstrip(b"\r\n").removeprefix(BOM) == dialect.header
    is_empty = len(cells) == columns + dialect.trailing and not any(cells)
    if is_header or is_empty or raw.strip(b" \t\r\n") in (b"", DOS_END):
        return [], ""
    if len(cells) != columns and not (dialect.trailing and len(cells) == columns + 1 and not cells[-1]):
        return [], f"has {len(cells)} fields, the header has {columns}"
    if not raw.isascii() and UNDECODABLE.search("".join(cells)):
        return [], "is not UTF-8"
    return cells[:columns], ""
