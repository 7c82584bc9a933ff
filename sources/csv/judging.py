"""Faults of a file as a whole: one reason instead of a dead letter for each row."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator

from sources.csv import parse
from sources.csv.content import raw
from sources.csv.heads import Head, NoCsv
from sources.csv.records import MAX_RECORD_BYTES
from sources.csv.validate import COLUMNS

# A single row that is wrong is a slip in that row.
_FEWEST_ROWS = 2
# Lines with bytes that are no UTF-8; with characters beyond ASCII that are.
_OTHER = re.compile(r"[\udc80-\udcff][^\n]*")
_UTF8 = re.compile(r"[^\x00-\x7f\udc80-\udcff][^\n]*")
# What of a reason differs from row to row.
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|(?<=^has )\d+")


def judge(fd: int, decimal_comma: bool) -> Head:
    """Parse the first lines and scan all others. Raises NoCsv."""
    head = parse.head(fd)
    other = utf8 = number = 0
    for lines in _whole_lines(fd):
        if not lines.isascii():
            text = lines.decode(errors="surrogateescape")
            other += len(_OTHER.findall(text))
            utf8 += len(_UTF8.findall(text))
        _check_headers(lines, number, head)
        number += lines.count(b"\n")
    # Now and then two bytes of another encoding are a character of UTF-8.
    if other >= _FEWEST_ROWS and other > 10 * utf8:
        raise NoCsv(
            f"it is not in UTF-8: {other} lines have bytes of another encoding, Windows-1252 perhaps; "
            "save it as CSV in UTF-8"
        )
    _check_rows(fd, head, decimal_comma)
    return head


def kind_of(reason: str) -> str:
    """The reason without what differs from row to row."""
    return _VARIES.sub("…", reason)


def _whole_lines(fd: int) -> Iterator[bytes]:
    """Pieces of the file that end with a line, in flat memory: of a line that has no end, what there is."""
    rest = b""
    for data in raw(fd):
        lines, feed, behind = data.rpartition(b"\n")
        if feed:
            yield rest + lines + feed
            rest = behind
        else:
            yield rest
            rest = data
    yield rest


def _check_headers(lines: bytes, number: int, head: Head) -> None:
    """Where files were joined the same header is passed over; another one would give its rows a wrong meaning."""
    small = lines.lower()
    at = small.find(b"salesman_id")
    while at >= 0:
        begin, end = small.rfind(b"\n", 0, at) + 1, small.find(b"\n", at)
        line = small[begin : end if end >= 0 else None]
        names = _cells(line, head.dialect.separator) if len(line) <= MAX_RECORD_BYTES else ()
        if set(names) >= set(COLUMNS) and names != head.names:
            line_number = number + small.count(b"\n", 0, begin) + 1
            raise NoCsv(
                f"line {line_number} names the columns again and in another order: make two files of it"
            )
        at = small.find(b"salesman_id", end) if end >= 0 else -1


def _cells(line: bytes, separator: str) -> tuple[str, ...]:
    # A carriage return within a line is an error to the csv module.
    text = line.decode(errors="replace").strip("\ufeff").replace("\r", " ")
    cells = next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
    return tuple(name.strip() for name in cells)


def _check_rows(fd: int, head: Head, decimal_comma: bool) -> None:
    """Whether every row is refused for the same reason: of a file of one block, since later ones may hold good rows.

    A larger one is taken row by row, and reported if it was in vain.
    """
    part = next(parse.parts(fd, head, head.body, decimal_comma), None)
    if part is None or part.good.height or part.rows < _FEWEST_ROWS:
        return
    if os.pread(fd, 1, part.end.offset):
        return
    reasons = {kind_of(bad.reason) for bad in part.bad}
    if len(reasons) == 1:
        raise NoCsv(f"each of its {part.rows} rows is refused: {part.bad[0].reason}")
