"""Faults of a file as a whole: one reason instead of a dead letter for each row."""

from __future__ import annotations

import csv
import os
import re

from sources.csv import parse
from sources.csv.heads import Head, NoCsv
from sources.csv.records import MAX_RECORD_BYTES, UNDECODABLE, Place, lines
from sources.csv.validate import COLUMNS

# A single row that is wrong is a slip in that row.
_FEWEST_ROWS = 2
# What of a reason differs from row to row.
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|(?<=^has )\d+")


def judge(fd: int, decimal_comma: bool) -> Head:
    """Parse the first lines and scan all others. Raises NoCsv."""
    head = parse.head(fd)
    other = utf8 = 0
    for raw, end in lines(fd, Place(0, 1)):
        if not raw.isascii():
            text = raw.decode(errors="surrogateescape")
            other += UNDECODABLE.search(text) is not None
            utf8 += not UNDECODABLE.sub("", text).isascii()
        if b"salesman_id" in (small := raw.lower()):
            _check_header(small, end.line - 1, head)
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


def _check_header(line: bytes, number: int, head: Head) -> None:
    """Where files were joined the same header is passed over; another one would give its rows a wrong meaning."""
    # A carriage return within a line is an error to the csv module.
    text = line.decode(errors="replace").strip("\ufeff").replace("\r", " ")
    cells = next(csv.reader([text], delimiter=head.dialect.separator, skipinitialspace=True), [])
    names = tuple(name.strip() for name in cells)
    if len(line) <= MAX_RECORD_BYTES and set(names) >= set(COLUMNS) and names != head.names:
        raise NoCsv(f"line {number} names the columns again and in another order: make two files of it")


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
