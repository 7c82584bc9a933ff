"""Which lines a record takes: what each line does to quotes, as the csv module understands them."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

# In the order in which they are tried.
SEPARATORS = (",", ";", "\t", "|")


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


@dataclass(frozen=True)
class Lines:
    """The lines of a block that end in it, and what they do to quotes.

    A record that begins on line i ends there, unless i is in `opening`; then on the next one of `closing`. Both are
    computed once for each line, so splitting is linear whatever the quotes.
    """

    data: bytes
    offsets: list[int]
    opening: set[int]
    closing: list[int]

    @classmethod
    def of(cls, data: bytes, dialect: Dialect) -> Lines:
        array = np.frombuffer(data, dtype=np.uint8)
        feeds = np.flatnonzero(array == ord("\n"))
        offsets = [0, *(feeds + 1).tolist()]
        fresh, quoted = _PATTERNS[dialect.separator, dialect.skips_blanks]
        opening, closing = set(), []
        for number in np.unique(np.searchsorted(feeds, np.flatnonzero(array == ord('"')))).tolist():
            if number < len(feeds):
                text = data[offsets[number] : offsets[number + 1] - 1]
                if not fresh.fullmatch(text):
                    opening.add(number)
                if quoted.fullmatch(text):
                    closing.append(number)
        return cls(data, offsets, opening, closing)

    def text(self, first: int, behind: int) -> bytes:
        return self.data[self.offsets[first] : self.offsets[behind]]

    def behind(self, first: int) -> int | None:
        """The line behind the record that begins on this one; None if it ends nowhere here."""
        if first not in self.opening:
            return first + 1
        at = bisect_left(self.closing, first + 1)
        return self.closing[at] + 1 if at < len(self.closing) else None


def _patterns(separator: str, skips_blanks: bool) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A line at whose end no quote is open, if none was at its beginning; and if one was."""
    closed = r'[^"]*+(?:""[^"]*+)*+"[^,]*+'
    blanks = " *+" if skips_blanks else ""
    field = rf'{blanks}(?:"{closed}|[^",][^,]*+|)'
    texts = (f"{field}(?:,{field})*+", f"{closed}(?:,{field})*+")
    fresh, quoted = (re.compile(text.replace(",", re.escape(separator)).encode()) for text in texts)
    return fresh, quoted


_PATTERNS = {
    (separator, skips_blanks): _patterns(separator, skips_blanks)
    for separator in SEPARATORS
    for skips_blanks in (False, True)
}
