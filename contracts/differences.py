"""Stored differences: their changes, the greatest first, and all of them as CSV.

`streaming/replay` stores differences; the command line, Dagster and the API show them, all from here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Table, text

WINDOW = ("window_start", "window_end")
# Bookkeeping of the engine, or computed from the rest: not part of a result.
_NO_RESULT = ("generation", "updated_at", "restated_at", "apply_number", "is_negative")
# The column that is summed up by currency, as the total of a generation.
_MONEY = {"city_totals": "total", "salesman_totals": "total", "joined_sales": "amount"}
# Rows in memory at a time: some 100 KB of CSV.
ROWS_AT_ONCE = 1_000

# Sums never mix currencies, nor do shares: a change is divided by its currency's total in the base, or in the candidate
# where the base has none. A sale that changed its currency has no change.
_CHANGES = text("""
WITH named AS (
  SELECT r.*, coalesce(grp ->> 'currency', after ->> 'currency', before ->> 'currency') AS currency,
         CASE WHEN before ->> 'currency' <> after ->> 'currency' THEN NULL
              ELSE coalesce(CAST(after ->> :money AS numeric), 0)
                   - coalesce(CAST(before ->> :money AS numeric), 0) END AS change
    FROM difference_rows AS r WHERE difference = :difference),
measured AS (
  SELECT n.*, round(change / nullif(abs(coalesce(CAST(d.before_total ->> n.currency AS numeric),
                                                 CAST(d.after_total ->> n.currency AS numeric))), 0), 6) AS share
    FROM named AS n JOIN differences AS d ON d.id = n.difference)
SELECT window_start, window_end, grp, kind, before, after, rank_before, rank_after, change, share
  FROM measured
 ORDER BY abs(share) DESC NULLS LAST, abs(change) DESC NULLS LAST,
          window_start, window_end, CAST(grp AS text) COLLATE "C"
 LIMIT :most
""")

_BY_WINDOW = text(
    "SELECT window_start, kind, count(*) AS groups FROM difference_rows "
    "WHERE difference = :difference AND window_start IS NOT NULL "
    "GROUP BY window_start, kind ORDER BY window_start, kind"
)


@dataclass(frozen=True)
class Shape:
    """The columns of one results table, by what they mean for a comparison."""

    table: Table

    @property
    def windowed(self) -> bool:
        return WINDOW[0] in self.table.columns

    @property
    def money(self) -> str:
        return _MONEY[self.table.name]

    @cached_property
    def group(self) -> tuple[str, ...]:
        """The columns that identify a group beside its window."""
        return tuple(c.name for c in self.table.primary_key if c.name not in ("generation", *WINDOW))

    @cached_property
    def values(self) -> tuple[str, ...]:
        """The columns of a group's values."""
        known = (*_NO_RESULT, *WINDOW, *self.group)
        return tuple(column.name for column in self.table.columns if column.name not in known)


@dataclass(frozen=True)
class Change:
    """One group that the generations show differently. Values are as stored: money is text.

    `change` is after less before, of the money; `share` that change as a share of the currency's total.
    """

    window_start: datetime | None
    window_end: datetime | None
    group: Mapping[str, str]
    kind: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    rank_before: int | None
    rank_after: int | None
    change: Decimal | None
    share: Decimal | None


def changes(
    connection: Connection, shape: Shape, difference: int, most: int | None = None
) -> Iterator[Change]:
    """The changes of a difference, by its id, the greatest first; fetched lazily."""
    parameters = {"difference": difference, "money": shape.money, "most": most}
    for row in connection.execute(_CHANGES, parameters, execution_options={"yield_per": ROWS_AT_ONCE}):
        yield Change(*row)


def by_window(connection: Connection, difference: int) -> list[tuple[datetime, str, int]]:
    """How many groups of each window were added, removed, changed. Empty without windows."""
    rows = connection.execute(_BY_WINDOW, {"difference": difference})
    return [(row.window_start, row.kind, row.groups) for row in rows]


def csv_of(connection: Connection, shape: Shape, difference: int) -> Iterator[str]:
    """Every change as CSV, in pieces, the header first: a column for each value before and after.

    Text that a spreadsheet would run has a `'` before it.
    """
    window = WINDOW if shape.windowed else ()
    sides = [f"{side}_{name}" for name in shape.values for side in ("before", "after")]
    ends = ("change", "share_of_total", "rank_before", "rank_after")
    yield _lines([[*window, *shape.group, "kind", *sides, *ends]])
    rows = changes(connection, shape, difference)
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        yield _lines(_cells(shape, change) for change in batch)


def _cells(shape: Shape, change: Change) -> Iterator[Any]:
    if shape.windowed:
        yield from (
            at.astimezone(UTC).isoformat()
            for at in (change.window_start, change.window_end)
            if at is not None
        )
    yield from (change.group[name] for name in shape.group)
    yield change.kind
    for name in shape.values:
        for side in (change.before, change.after):
            value = (side or {}).get(name)
            yield json.dumps(value) if isinstance(value, list | dict) else value
    for number in (change.change, change.share):
        yield None if number is None else f"{number:f}"
    yield change.rank_before
    yield change.rank_after


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([as_data(cell) for cell in row] for row in rows)
    return file.getvalue()


_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def as_data(cell: Any) -> Any:
    """The cell so that a spreadsheet does not run it: a city may be called `=HYPERLINK(…)`."""
    runs = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{cell}" if runs and not _NUMBER.fullmatch(cell) else cell
