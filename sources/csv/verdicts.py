"""Which records are blank, rows, or unreadable, before their cells are parsed. Over whole blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sources.csv.quoting import Dialect
from sources.csv.wholeness import DOS_END

if TYPE_CHECKING:
    from sources.csv.records import Places, Records

BOM = b"\xef\xbb\xbf"
_LF, _CR, _QUOTE = 10, 13, 34
# Written without quotes, and with them.
_EMPTY_CELLS = (b"", b'""')


def without_end(array: npt.NDArray[np.uint8], ends: Places, lengths: Places) -> Places:
    """The bytes of each record without its line end, of which one or two carriage returns are part."""
    first = (lengths > 1) & (array[np.maximum(ends - 2, 0)] == _CR)
    second = first & (lengths > 2) & (array[np.maximum(ends - 3, 0)] == _CR)
    sizes: Places = lengths - 1 - first - second
    return sizes


def lone_returns(array: npt.NDArray[np.uint8]) -> Places:
    returns = np.flatnonzero(array == _CR)
    last = len(array) - 1
    behind, second = array[np.minimum(returns + 1, last)], array[np.minimum(returns + 2, last)]
    lone: Places = returns[(behind != _LF) & ~((behind == _CR) & (second == _LF))]
    return lone


def are_blank(records: Records, sizes: Places, columns: int, dialect: Dialect) -> npt.NDArray[np.bool_]:
    """Records without values: blank lines, rows of separators alone, and the header repeated.

    Also the end of a file as programs for DOS mark it.
    """
    blank: npt.NDArray[np.bool_] = sizes == 0
    cells, separator = columns + dialect.trailing, dialect.separator.encode()
    headers = [dialect.header, BOM + dialect.header] if dialect.header else []
    lengths, firsts = (np.array([[len(one), one[0]] for one in (DOS_END, *headers)])).T
    array = np.frombuffer(records.data, dtype=np.uint8)
    # A few of many: most rows have another length, or another first letter.
    is_like = np.isin(sizes, lengths) & np.isin(array[records.starts], firsts)
    is_like |= (sizes <= 3 * cells) & np.isin(array[records.starts], (separator[0], _QUOTE))
    for row in np.flatnonzero(is_like).tolist():
        begin = int(records.starts[row])
        text = records.data[begin : begin + int(sizes[row])]
        parts = text.split(separator)
        is_empty = len(parts) == cells and all(part in _EMPTY_CELLS for part in parts)
        blank[row] = blank[row] or is_empty or text in (DOS_END, *headers)
    for row in np.flatnonzero((records.counts == 1) & np.isin(array[records.starts], (32, 9))).tolist():
        begin = int(records.starts[row])
        blank[row] = blank[row] or not records.data[begin : begin + int(sizes[row])].strip()
    # Where records were written anew, these stand as they are in the file.
    for row, text in enumerate(records.raw):
        is_empty = text.strip(b" \t\r\n") in (b"", DOS_END)
        blank[row] = blank[row] or is_empty or text.rstrip(b"\r\n") in headers
    return blank


def fits(records: Records, sizes: Places, columns: int, dialect: Dialect) -> npt.NDArray[np.bool_]:
    """Whether a record has a cell for each column."""
    fits: npt.NDArray[np.bool_] = records.counts == columns
    if dialect.trailing:
        # Written anew, the last cell is two quotes.
        width = 3 if records.raw else 1
        begins = np.maximum(records.starts + sizes - width, 0)
        is_open = np.frombuffer(records.data, dtype=np.uint8)[begins] == ord(dialect.separator)
        fits |= (records.counts == columns + 1) & is_open
    return fits


def not_utf8(text: bytes, ends: Places) -> Iterator[int]:
    """Indices of the records that are not UTF-8."""
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
