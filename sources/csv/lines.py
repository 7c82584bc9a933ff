"""A file's bytes → blocks of whole records with their true line numbers, in flat memory whatever the file holds.

A record ends at a line feed outside of quotes. What a parser could stumble over is set aside here, with its line: what
is too long, not UTF-8, has a NUL or a lone carriage return, an open quote, or another number of fields than the header.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# What is read, parsed and written in one go: some ten thousand rows, so that a Kafka transaction is about 50 ms.
BLOCK_BYTES = 1 << 20
# A row is ten short values. Beyond this it is none, and is never held as a whole.
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
    """A record that cannot be taken: its first line, why, and how it begins."""

    line: int
    reason: str
    raw: bytes


@dataclass(frozen=True)
class _Records:
    """Record i stands in `data` from `starts[i]` to `ends[i]`; they are so many bytes and lines of the file.

    `raw`: what stands in the file, where `data` was written anew. `failure`: why what follows is no record.
    """

    data: bytes
    starts: Places
    ends: Places
    lines: Places
    counts: Places
    size: int
    size_lines: int
    failure: str
    raw: tuple[bytes, ...] = ()

    def joined(self, rows: Places) -> bytes:
        """The text of some of them; what stands together is copied together."""
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        return b"".join(self.data[self.starts[run[0]] : self.ends[run[-1]]] for run in runs if len(run))

    def shown(self, row: int) -> bytes:
        raw = self.raw[row] if self.raw else self.data[self.starts[row] : self.ends[row]]
        return raw[:SHOWN_BYTES]


@dataclass
class Block:
    """Records up to `end`: `text` has the sound ones, `lines` says where each of them begins; blank lines are none."""

    text: bytes
    lines: Places
    bad: list[Bad]
    end: Place
    _records: _Records
    _rows: Places

    def shown(self, index: int) -> bytes:
        """How a sound one looks in the file."""
        return self._records.shown(int(self._rows[index]))


def blocks(fd: int, place: Place, separator: str, columns: int) -> Iterator[Block]:
    """Blocks from the place on to the end of the file."""
    while data := os.pread(fd, BLOCK_BYTES, place.offset):
        is_last = not os.pread(fd, 1, place.offset + len(data))
        if is_last and not data.endswith(b"\n"):
            data += b"\n"
        found = _split(data, place.line, separator, is_last)
        place = Place(place.offset + found.size, place.line + found.size_lines)
        block = _sound(found, columns, place)
        if found.failure:
            bad, place = _pass_line(fd, place, found.failure)
            block.bad.append(bad)
            block.end = place
        yield block


def _split(data: bytes, line: int, separator: str, is_last: bool) -> _Records:
    array = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(array == _QUOTE)
    if len(quotes) and not _is_regular(array, quotes, ord(separator)):
        return _split_irregular(data, line, separator, is_last)
    feeds = np.flatnonzero(array == _LF)
    separators = np.flatnonzero(array == ord(separator))
    outside = feeds
    if len(quotes):
        # Outside of quotes is what an even number of quotes stands before.
        outside = feeds[np.searchsorted(quotes, feeds) % 2 == 0]
        separators = separators[np.searchsorted(quotes, separators) % 2 == 0]
    ends = outside + 1
    starts = np.concatenate(([0], ends[:-1])).astype(np.int64)[: len(ends)]
    long = np.flatnonzero(ends - starts > MAX_RECORD_BYTES)
    if len(long):
        starts, ends = starts[: long[0]], ends[: long[0]]
    size = int(ends[-1]) if len(ends) else 0
    rest = len(data) - size
    is_stuck = len(long) or (rest and (is_last or rest > MAX_RECORD_BYTES))
    return _Records(
        data,
        starts,
        ends,
        line + np.searchsorted(feeds, starts),
        np.searchsorted(separators, ends) - np.searchsorted(separators, starts) + 1,
        size,
        int(np.searchsorted(feeds, size)),
        _OPEN_QUOTE if is_stuck else "",
    )


def _is_regular(array: npt.NDArray[np.uint8], quotes: Places, separator: int) -> bool:
    """Whether every quote opens at the beginning of a field, closes at its end, or is one of a pair within.

    Then counting them tells what is quoted. `5" pipe` is not regular.
    """
    opening, closing = quotes[0::2], quotes[1::2]
    before = array[np.maximum(opening - 1, 0)]
    opens = (opening == 0) | (before == separator) | (before == _LF) | (before == _QUOTE)
    behind = array[np.minimum(closing + 1, len(array) - 1)]
    closes = (behind == separator) | (behind == _LF) | (behind == _CR) | (behind == _QUOTE)
    return bool(opens.all() and closes.all())


# Given to the reader behind the last line: shows whether a quote was still open there.
_SENTINEL = "end"


def _split_irregular(data: bytes, line: int, separator: str, is_last: bool) -> _Records:
    """The same by the csv module, and written anew with every field in quotes: slower, and right for stray quotes."""
    # Latin-1 keeps each byte as it is.
    physical = io.StringIO(data.decode("latin-1"), newline="\n").readlines()
    if not data.endswith(b"\n"):
        physical.pop()
    offsets = [0]
    for text in physical:
        offsets.append(offsets[-1] + len(text))
    reader = csv.reader([*physical, _SENTINEL], delimiter=separator)
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n")
    ends, lines, counts, raw = [0], [], [], []
    done, failure = 0, ""
    while done < len(physical):
        try:
            row = next(reader)
        except csv.Error:
            failure = _LONE_RETURN if b"\r" in data[offsets[done] : offsets[done + 1] - 2] else _OPEN_QUOTE
            break
        upto = reader.line_num
        if upto > len(physical) or offsets[upto] - offsets[done] > MAX_RECORD_BYTES:
            is_open = is_last or len(data) - offsets[done] > MAX_RECORD_BYTES
            failure = _OPEN_QUOTE if is_open else ""
            break
        if row:
            writer.writerow(row)
        else:
            out.write("\n")
        ends.append(out.tell())
        lines.append(line + done)
        counts.append(len(row))
        raw.append(data[offsets[done] : offsets[upto]])
        done = upto
    if done == len(physical) and len(data) - offsets[done] > MAX_RECORD_BYTES:
        failure = _TOO_LONG
    written = out.getvalue().encode("latin-1")
    places = np.array(ends, dtype=np.int64)
    numbers = np.array(lines, dtype=np.int64), np.array(counts, dtype=np.int64)
    return _Records(written, places[:-1], places[1:], *numbers, offsets[done], done, failure, tuple(raw))


def _sound(found: _Records, columns: int, end: Place) -> Block:
    """The records that a parser will take as they are; the others with their reason."""
    array = np.frombuffer(found.data, dtype=np.uint8)
    count = len(found.starts)
    lengths = found.ends - found.starts
    blank = (lengths == 1) | ((lengths == 2) & (array[found.starts] == _CR))
    reasons: dict[int, str] = {}
    for row in np.flatnonzero((found.counts != columns) & ~blank):
        reasons[int(row)] = f"has {found.counts[row]} fields, the header has {columns}"
    returns = np.flatnonzero(array == _CR)
    lone = returns[array[np.minimum(returns + 1, len(array) - 1)] != _LF]
    for places, reason in ((lone, _LONE_RETURN), (np.flatnonzero(array == 0), "holds a NUL")):
        for row in np.unique(np.searchsorted(found.ends, places, side="right")):
            if row < count:
                reasons[int(row)] = reason
    keep = ~blank
    keep[list(reasons)] = False
    rows = np.flatnonzero(keep)
    text = found.joined(rows)
    undecodable = [int(rows[index]) for index in _not_utf8(text, np.cumsum(lengths[rows]))]
    if undecodable:
        reasons.update(dict.fromkeys(undecodable, "is not UTF-8"))
        keep[undecodable] = False
        rows = np.flatnonzero(keep)
        text = found.joined(rows)
    bad = [Bad(int(found.lines[row]), reasons[row], found.shown(row)) for row in sorted(reasons)]
    return Block(text, found.lines[rows], bad, end, found, rows)


def _not_utf8(text: bytes, ends: Places) -> Iterator[int]:
    """Which records are not."""
    view = memoryview(text)
    begin = 0
    while begin < len(text):
        try:
            str(view[begin:], "utf-8")
        except UnicodeDecodeError as error:
            index = int(np.searchsorted(ends, begin + error.start, side="right"))
            yield index
            begin = int(ends[index])
        else:
            return


def _pass_line(fd: int, place: Place, reason: str) -> tuple[Bad, Place]:
    """Pass one line of the file, however long, without holding it."""
    shown = os.pread(fd, SHOWN_BYTES, place.offset)
    offset = place.offset
    while data := os.pread(fd, BLOCK_BYTES, offset):
        found = data.find(b"\n")
        offset += len(data) if found < 0 else found + 1
        if found >= 0:
            break
    if offset - place.offset > MAX_RECORD_BYTES:
        reason = _TOO_LONG
    return Bad(place.line, reason, shown[: offset - place.offset]), Place(offset, place.line + 1)
