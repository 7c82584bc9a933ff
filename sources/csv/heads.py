"""The head of a file: the names of its columns, its dialect, and whether it is CSV at all."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass, replace
from itertools import islice

from sources.csv.records import BOM, MAX_RECORD_BYTES, SEPARATORS, Dialect, Place, lines
from sources.csv.validate import CELLS, COLUMNS, OPERATION

# By their first bytes, the longer ones first.
_OTHERS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of an old Excel",
    b"\x1f\x8b": "packed twice by gzip",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"(\xb5/\xfd": "packed by zstd",
    b"PAR1": "Parquet",
    b"%PDF": "PDF",
    b"<": "XML or HTML",
    b"{": "JSON",
    b"[": "JSON",
}
# Excel's line for Excel: the separator of the lines below.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_BLANK_BEHIND = re.compile(r"[,;\t|] ")
# So many rows show how records are written.
_SAMPLE_ROWS = 100


class NoCsv(ValueError):
    """A file that is no CSV of sales at all; the message has the reason."""


@dataclass(frozen=True)
class Head:
    """The first lines, parsed: dialect, names of the columns, and where the rows begin."""

    dialect: Dialect
    names: tuple[str, ...]
    body: Place

    @property
    def unknown(self) -> tuple[str, ...]:
        """Columns that are passed over. One without a name is an index; at the end it is none."""
        named = self.names[:-1] if self.names[-1] == "" else self.names
        return tuple(name or "(without a name)" for name in named if name not in CELLS)


def head(fd: int) -> Head:
    """Read the first lines. Raises NoCsv."""
    data = os.pread(fd, MAX_RECORD_BYTES, 0)
    _check_kind(data)
    offset = 0
    while data.startswith(BOM, offset):
        offset += len(BOM)
    separators: tuple[str, ...] = SEPARATORS
    rest = lines(fd, Place(offset, 1))
    for line, end in rest:
        if len(line) > MAX_RECORD_BYTES:
            raise NoCsv(f"the first line is longer than {MAX_RECORD_BYTES} bytes")
        raw = line.rstrip(b"\r\n")
        text = raw.decode(errors="replace")
        if separator := _SEPARATOR_LINE.fullmatch(text):
            separators = (separator[1],)
            if separator[1] not in SEPARATORS:
                raise NoCsv(
                    f"its first line is sep={separator[1]}, which is no separator: , ; | and a tab are"
                )
        elif text.strip(" \t,;|"):
            body = end
            break
    else:
        raise NoCsv("the file holds blank lines only")
    if "\r" in text:
        raise NoCsv("its lines end in a carriage return alone; save it with line feeds")
    if "\0" in text:
        raise NoCsv("the first line holds a NUL")
    chosen, names = _names(text, separators)
    dialect = Dialect(chosen, _BLANK_BEHIND.search(text) is not None, header=raw)
    # A rule below the header, as SQL*Plus writes it.
    for below, behind in islice(rest, 1):
        if b"-" in below and not below.strip(b"- ,;|\t\r\n"):
            body = behind
    is_trailing = _is_trailing(data[body.offset :], dialect, len(names))
    return Head(replace(dialect, trailing=is_trailing), names, body)


def _check_kind(data: bytes) -> None:
    if not data:
        raise NoCsv("the file is empty")
    for mark, what in _OTHERS.items():
        if data.startswith(mark):
            raise NoCsv(f"the file is {what}; save it as CSV in UTF-8")
    # ASCII in two bytes a character.
    begin = data[:1_000]
    even, odd = begin[::2].count(0), begin[1::2].count(0)
    if min(even, odd) < len(begin) // 20 < len(begin) // 4 < max(even, odd):
        raise NoCsv("the file is UTF-16 without a byte order mark; save it as CSV in UTF-8")


def _names(text: str, separators: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    missing: list[str] = []
    for separator in separators:
        cells = next(csv.reader([text], delimiter=separator, skipinitialspace=True), [])
        names = tuple(name.strip().strip("\ufeff").lower() for name in cells)
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


def _is_trailing(data: bytes, dialect: Dialect, columns: int) -> bool:
    """Whether every row has one cell too many, an empty one at its end: a comma within a cell makes no such file."""
    whole, feed, _ = data.rpartition(b"\n")
    lines = (whole if feed else data).decode(errors="replace").splitlines()
    rows = 0
    for row in csv.reader(lines, delimiter=dialect.separator, skipinitialspace=dialect.skips_blanks):
        if not any(row):
            continue
        if len(row) != columns + 1 or row[-1]:
            return False
        rows += 1
        if rows == _SAMPLE_ROWS:
            break
    return rows > 0
