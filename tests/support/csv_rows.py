"""Rows of CSV files, and what the parser makes of them."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sources.csv import parse

GOOD = {
    "sale_id": "a1", "sold_at": "2026-11-22T10:00:00Z", "city": "Berlin", "country": "DE", "salesman_id": "s1",
    "salesman_name": "Ada", "product": "tv", "quantity": "1", "amount": "499.99", "currency": "EUR",
}  # fmt: skip

# The sound rows; line and reason of each other.
Rows = tuple[list[dict[str, Any]], list[tuple[int, str]]]


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.fileno()


def read(content: bytes, decimal_comma: bool = False) -> Rows:
    """Each part from the place behind the former one, as after a kill."""
    parts = []
    with opened(content) as fd:
        head = parse.head(fd)
        place = head.body
        while part := next(parse.parts(fd, head, place, decimal_comma), None):
            parts.append(part)
            place = part.end
    good = [row for part in parts for row in part.good.iter_rows(named=True)]
    return good, [(bad.line, bad.reason) for part in parts for bad in part.bad]


def written(*rows: dict[str, str], **options: Any) -> bytes:
    """The rows as a file; columns are those of the first."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n", **options)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def reason(**changes: str) -> str:
    """Why a row with these cells is refused; empty if it is not."""
    good, bad = read(written(GOOD, GOOD | changes))
    assert len(good) + len(bad) == 2
    assert [line for line, _ in bad] in ([], [3])
    return bad[0][1] if bad else ""
