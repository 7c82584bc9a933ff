"""A file's bytes → blocks of whole records with their true line numbers, in flat memory whatever the file holds.

A record ends at a line feed outside of quotes. What a parser could not read is set aside here, with its line: what
is too long, not UTF-8, has a NUL or a lone carriage return, an open quote, or another number of fields than the header.

Quotes mean what they mean to the csv module; a carriage return that ends no line is a character like any other, so that
its record is split off, and refused. Two before a line feed are one: translating line ends twice makes them. Records
are split by whole blocks or by lines: both are this grammar.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sources.csv.quoting import Dialect, Lines
from sources.csv.verdicts import are_blank, fits, lone_returns, not_utf8, without_end

# What is read, parsed and written in one go: some ten thousand rows, so that a Kafka transaction is about 50 ms.
BLOCK_BYTES = 1 << 20
# Of a block, good or bad: rows of two bytes would be half a million dead letters in one transaction.
MOST_RECORDS = 20_000
# A row is ten short values. A longer record is none, and is never held in memory as a whole.
MAX_RECORD_BYTES = 1 << 16
# What a dead letter shows of a row.
SHOWN_BYTES = 10_000
_LF, _CR, _QUOTE = 10, 13, 34
_TOO_LONG = f"is longer than {MAX_RECORD_BYTES} bytes"
_OPEN_QUOTE = f"opens a quote that is not closed within {MAX_RECORD_BYTES} bytes or before the end"
_LONE_RETURN = "holds a carriage return that ends no line"

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
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


@dataclass(frozen=True)
class Records:
    """Record i is in `data` from `starts[i]` to `ends[i]`; they and `bad` are so many bytes and lines of the file.

    `raw`: the records as in the file, if `data` was written anew. `is_endless`: what follows is a line that is no
    record and does not end in the block.
    """

    data: bytes
    starts: Places
    ends: Places
    lines: Places
    counts: Places
    size: int
    size_lines: int
    raw: tuple[bytes, ...] = ()
    bad: tuple[Bad, ...] = ()
    is_endless: bool = False

    def joined(self, rows: Places) -> bytes:
        """The text of these rows; adjacent ones are copied together."""
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        return b"".join(self.data[self.starts[run[0]] : self.ends[run[-1]]] for run in runs if len(run))

    def shown(self, row: int) -> bytes:
        raw = self.raw[row] if self.raw else self.data[self.starts[row] : self.ends[row]]
        return raw[:SHOWN_BYTES]


@dataclass
class Block:
    """Records up to `end`: `text` has the valid ones, `lines` the line on which each begins; blank lines are none."""

    text: bytes
    lines: Places
    bad: list[Bad]
    end: Place
    _records: Records
    _rows: Places

    def shown(self, index: int) -> bytes:
        """A valid one as it is in the file."""
        return self._records.shown(int(self._rows[index]))


def blocks(fd: int, place: Place, dialect: Dialect, columns: int) -> Iterator[Block]:
    """Blocks from the place on to the end of the file."""
    while data := os.pread(fd, BLOCK_BYTES, place.offset):
        is_last = not os.pread(fd, 1, place.offset + len(data))
        if is_last and not data.endswith(b"\n"):
            data += b"\n"
        data, is_last = _bounded(data, is_last)
        records = _split(data, place.line, dialect, is_last)
        place = Place(place.offset + records.size, place.line + records.size_lines)
        block = _sound(records, columns, dialect, place)
        if records.is_endless:
            bad, place = _pass_line(fd, place)
            block.bad.append(bad)
            block.end = place
        yield block


def _bounded(data: bytes, is_last: bool) -> tuple[bytes, bool]:
    """No more than a block's records need, and what has to be seen behind them, so that it is not scanned again."""
    feeds = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _LF)
    if len(feeds) <= MOST_RECORDS:
        return data, is_last
    end = max(int(feeds[MOST_RECORDS - 1]), 2 * MAX_RECORD_BYTES) + 1
    return data[:end], is_last and end >= len(data)


def _split(data: bytes, line: int, dialect: Dialect, is_last: bool) -> Records:
    array = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(array == _QUOTE)
    separator = ord(dialect.separator)
    if len(quotes) and not _is_regular(array, quotes, separator):
        return _split_by_lines(data, line, dialect, is_last)
    feeds = np.flatnonzero(array == _LF)
    separators = np.flatnonzero(array == separator)
    outside = feeds
    if len(quotes):
        # Outside of quotes is what an even number of quotes stands before.
        outside = feeds[np.searchsorted(quotes, feeds) % 2 == 0]
        separators = separators[np.searchsorted(quotes, separators) % 2 == 0]
    ends = outside[:MOST_RECORDS] + 1
    starts = np.concatenate(([0], ends[:-1])).astype(np.int64)[: len(ends)]
    size = int(ends[-1]) if len(ends) else 0
    rest = len(data) - size if len(outside) <= MOST_RECORDS else 0
    if (ends - starts > MAX_RECORD_BYTES).any() or (rest and (is_last or rest > MAX_RECORD_BYTES)):
        return _split_by_lines(data, line, dialect, is_last)
    return Records(
        data,
        starts,
        ends,
        line + np.searchsorted(feeds, starts),
        np.searchsorted(separators, ends) - np.searchsorted(separators, starts) + 1,
        size,
        int(np.searchsorted(feeds, size)),
    )


def _is_regular(array: npt.NDArray[np.uint8], quotes: Places, separator: int) -> bool:
    """Whether every quote opens at the beginning of a field, closes at its end, or is one of a pair within.

    Then counting them is enough to find what is quoted. `5" pipe` is not regular.
    """
    opening, closing = quotes[0::2], quotes[1::2]
    before = array[np.maximum(opening - 1, 0)]
    opens = (opening == 0) | (before == separator) | (before == _LF) | (before == _QUOTE)
    behind = array[np.minimum(closing + 1, len(array) - 1)]
    closes = (behind == separator) | (behind == _LF) | (behind == _CR) | (behind == _QUOTE)
    return bool(opens.all() and closes.all())


_LONE_CR = re.compile(rb"\r(?!\r?\n)")


def _split_by_lines(data: bytes, line: int, dialect: Dialect, is_last: bool) -> Records:
    """The same line by line, written anew with every field in quotes: slower, and right for stray and open quotes."""
    lines = Lines.of(data, dialect)
    records: list[tuple[int, int]] = []
    bad: list[Bad] = []
    at, count = 0, len(lines.offsets) - 1
    while at < count and len(records) + len(bad) < MOST_RECORDS:
        behind, reason = lines.behind(at), ""
        if len(lines.text(at, at + 1)) > MAX_RECORD_BYTES:
            reason = _TOO_LONG
        elif behind is None and not is_last and len(data) - lines.offsets[at] <= MAX_RECORD_BYTES:
            break
        elif behind is None or lines.offsets[behind] - lines.offsets[at] > MAX_RECORD_BYTES:
            reason = _OPEN_QUOTE
        if reason or behind is None:
            bad.append(Bad(line + at, reason, lines.text(at, at + 1)[:SHOWN_BYTES]))
            at += 1
        else:
            records.append((at, behind))
            at = behind
    rest = len(data) - lines.offsets[at]
    return replace(
        _rewritten(lines, records, line, dialect),
        size=lines.offsets[at],
        size_lines=at,
        bad=tuple(bad),
        is_endless=at == count and rest > MAX_RECORD_BYTES,
    )


def _rewritten(lines: Lines, records: list[tuple[int, int]], line: int, dialect: Dialect) -> Records:
    raw = [lines.text(first, behind) for first, behind in records]
    # What the csv module cannot read is left unchanged; it will be refused. Latin-1 maps each byte to itself.
    is_lone = [b"\r" in text and _LONE_CR.search(text) is not None for text in raw]
    readable = (text.decode("latin-1") for text, lone in zip(raw, is_lone, strict=True) if not lone)
    reader = csv.reader(
        (part for text in readable for part in io.StringIO(text, newline="\n")),
        delimiter=dialect.separator,
        skipinitialspace=dialect.skips_blanks,
    )
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=dialect.separator, quoting=csv.QUOTE_ALL, lineterminator="\n")
    ends, counts = [0], []
    for text, lone in zip(raw, is_lone, strict=True):
        row = [] if lone else next(reader)
        if row:
            writer.writerow(row)
        else:
            out.write(text.decode("latin-1"))
        ends.append(out.tell())
        counts.append(len(row))
    places = np.array(ends, dtype=np.int64)
    return Records(
        out.getvalue().encode("latin-1"),
        places[:-1],
        places[1:],
        np.array([line + first for first, _ in records], dtype=np.int64),
        np.array(counts, dtype=np.int64),
        0,
        0,
        tuple(raw),
    )


def _sound(records: Records, columns: int, dialect: Dialect, end: Place) -> Block:
    """The records that a parser can read; the others with their reason."""
    array = np.frombuffer(records.data, dtype=np.uint8)
    count = len(records.starts)
    lengths = records.ends - records.starts
    sizes = without_end(array, records.ends, lengths)
    blank = are_blank(records, sizes, columns, dialect)
    reasons: dict[int, str] = {}
    for row in np.flatnonzero(~fits(records, sizes, columns, dialect) & ~blank):
        reasons[int(row)] = f"has {records.counts[row]} fields, the header has {columns}"
    for places, reason in ((lone_returns(array), _LONE_RETURN), (np.flatnonzero(array == 0), "holds a NUL")):
        for row in np.unique(np.searchsorted(records.ends, places, side="right")):
            if row < count:
                reasons[int(row)] = reason
    keep = ~blank
    keep[list(reasons)] = False
    rows = np.flatnonzero(keep)
    text = records.joined(rows)
    undecodable = [int(rows[index]) for index in not_utf8(text, np.cumsum(lengths[rows]))]
    if undecodable:
        reasons.update(dict.fromkeys(undecodable, "is not UTF-8"))
        keep[undecodable] = False
        rows = np.flatnonzero(keep)
        text = records.joined(rows)
    bad = [Bad(int(records.lines[row]), reasons[row], records.shown(row)) for row in sorted(reasons)]
    bad = sorted([*bad, *records.bad], key=lambda one: one.line)
    return Block(text.replace(b"\r\r\n", b"\r\n"), records.lines[rows], bad, end, records, rows)


def _pass_line(fd: int, place: Place) -> tuple[Bad, Place]:
    """Pass one line of the file, however long, without holding it."""
    shown = os.pread(fd, SHOWN_BYTES, place.offset)
    offset = place.offset
    while data := os.pread(fd, BLOCK_BYTES, offset):
        feed = data.find(b"\n")
        offset += len(data) if feed < 0 else feed + 1
        if feed >= 0:
            break
    return Bad(place.line, _TOO_LONG, shown), Place(offset, place.line + 1)
