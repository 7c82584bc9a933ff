"""Generations, and what one says differently from the active one; each answer from one snapshot.

What is compared, and how it is measured, is said by `streaming/replay`; a test holds both to the same rows.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from api.generation_schemas import Difference, Generations, span
from api.queries import CITY, ENRICHED, SALESMAN
from contracts.tables import city_totals, joined_sales, salesman_totals

TABLES = {CITY: city_totals, SALESMAN: salesman_totals, ENRICHED: joined_sales}
_WINDOW = ("window_start", "window_end")
# Says how the engine got there, and is no part of a result.
_NO_RESULT = ("generation", "updated_at", "restated_at", "apply_number")
# So many lines of CSV at a time: some 100 KB.
LINES_AT_ONCE = 1_000

_COMPARED = "base, compared, added, removed, changed, outside, fingerprint, computed_at"
_LIST = (
    "SELECT g.*, d.* FROM (SELECT pipeline, number AS generation, state, version, parameters, range_start, range_end, "
    "reason, created_by, approved_by, error, created_at, candidate_at, promoted_at, standby_at, retired_at "
    "FROM generations WHERE CAST(%(pipeline)s AS text) IS NULL OR pipeline = %(pipeline)s "
    "ORDER BY created_at DESC, pipeline, number DESC LIMIT %(limit)s) AS g "
    f"LEFT JOIN LATERAL (SELECT {_COMPARED} FROM differences WHERE pipeline = g.pipeline "
    "AND generation = g.generation ORDER BY computed_at DESC, id DESC LIMIT 1) AS d ON true "
    "ORDER BY g.created_at DESC, g.pipeline, g.generation DESC"
)
_STATE = (
    "SELECT g.state, g.range_start, g.range_end, a.generation AS active, a.promotion_number "
    "FROM generations AS g LEFT JOIN active_generations AS a USING (pipeline) "
    "WHERE pipeline = %(pipeline)s AND number = %(number)s"
)
_NEWEST = (
    f"SELECT id, pipeline, generation, promotion_number, before_total, after_total, {_COMPARED} FROM differences "
    "WHERE pipeline = %(pipeline)s AND generation = %(number)s ORDER BY computed_at DESC, id DESC LIMIT 1"
)
# Measured by what the currency comes to, in the base, or in the candidate where the base has nothing of it. A sale that
# changed its currency has no change.
_CHANGES = text("""
WITH named AS (
  SELECT r.*, coalesce(grp ->> 'currency', after ->> 'currency', before ->> 'currency') AS currency,
         CASE WHEN before ->> 'currency' <> after ->> 'currency' THEN NULL
              ELSE coalesce(CAST(after ->> :money AS numeric), 0)
                   - coalesce(CAST(before ->> :money AS numeric), 0) END AS change
    FROM difference_rows AS r WHERE difference = :id),
measured AS (
  SELECT n.*, round(change / nullif(abs(coalesce(CAST(d.before_total ->> n.currency AS numeric),
                                                 CAST(d.after_total ->> n.currency AS numeric))), 0), 6) AS share
    FROM named AS n JOIN differences AS d ON d.id = n.difference)
SELECT window_start, window_end, grp, kind, before, after, change, share, rank_before, rank_after
  FROM measured
 ORDER BY abs(share) DESC NULLS LAST, abs(change) DESC NULLS LAST,
          window_start, window_end, CAST(grp AS text) COLLATE "C"
 LIMIT :most
""")


class NotThere(Exception):
    """There is no such generation or difference; the message is one line for the caller."""


@dataclass(frozen=True)
class Which:
    """One generation of a pipeline."""

    pipeline: str
    number: int

    def __str__(self) -> str:
        return f"g{self.number} of {self.pipeline}"


def listed(connection: Connection, pipeline: str | None, limit: int) -> bytes:
    """The generations of all pipelines or of one. Raises NotThere."""
    rows = list(connection.exec_driver_sql(_LIST, {"pipeline": pipeline, "limit": limit}).mappings())
    if pipeline is not None and not rows:
        raise NotThere(f"there is no generation of {pipeline}")
    data = [
        {
            **row,
            "range": span(row["range_start"], row["range_end"]),
            "difference": None if row["fingerprint"] is None else row,
        }
        for row in rows
    ]
    return Generations.model_validate({"data": data}).model_dump_json().encode()


def compared(connection: Connection, which: Which, limit: int) -> bytes:
    """The newest difference and the greatest changes of it. Raises NotThere."""
    now, found = _state(connection, which), _newest(connection, which)
    # A generation that is retired loses its changes some at a time; what they came to stays.
    rows = [] if now.state == "retired" else list(_changes(connection, found, limit))
    before, after = (
        {currency: Decimal(total) for currency, total in totals.items()}
        for totals in (found.before_total, found.after_total)
    )
    zero = Decimal("0.0000")
    shown = {
        **found._mapping,
        "state": now.state,
        "is_current": (now.active, now.promotion_number) == (found.base, found.promotion_number),
        "range": span(now.range_start, now.range_end),
        "totals": [
            {
                "currency": currency,
                "before": before.get(currency, zero),
                "after": after.get(currency, zero),
                "change": after.get(currency, zero) - before.get(currency, zero),
            }
            for currency in sorted({*before, *after})
        ],
        "changes": [
            {**row._mapping, "group": row.grp, "window": span(row.window_start, row.window_end)}
            for row in rows
        ],
    }
    return Difference.model_validate(shown).model_dump_json().encode()


def csv_of(connection: Connection, which: Which) -> Iterator[str]:
    """Every change of the newest difference, the greatest first, a column for each value before and after.

    Raises NotThere, before the first piece.
    """
    now, found = _state(connection, which), _newest(connection, which)
    if now.state == "retired":
        raise NotThere(f"{which} was retired, and the rows of its difference with it")
    table = TABLES[which.pipeline]
    window = [name for name in _WINDOW if name in table.columns]
    group = [c.name for c in table.primary_key if c.name not in ("generation", *_WINDOW)]
    values = [c.name for c in table.columns if c.name not in (*_NO_RESULT, *_WINDOW, *group)]
    sides = [f"{side}_{name}" for name in values for side in ("before", "after")]
    yield _lines([[*window, *group, "kind", *sides, "change", "share_of_total", "rank_before", "rank_after"]])
    for rows in _changes(connection, found, None).partitions():
        yield _lines(_cells(row, window, group, values) for row in rows)


def _cells(row: Row[Any], window: list[str], group: list[str], values: list[str]) -> Iterator[Any]:
    yield from (getattr(row, name).isoformat() for name in window)
    yield from (row.grp[name] for name in group)
    yield row.kind
    for name in values:
        for side in (row.before, row.after):
            value = (side or {}).get(name)
            yield json.dumps(value) if isinstance(value, (list, dict)) else value
    for number in (row.change, row.share):
        yield None if number is None else f"{number:f}"
    yield row.rank_before
    yield row.rank_after


def _lines(rows: Any) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([data(cell) for cell in row] for row in rows)
    return file.getvalue()


_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def data(cell: Any) -> Any:
    """The cell so that a spreadsheet does not run it: a city may be called `=HYPERLINK(…)`."""
    runs = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{cell}" if runs and not _NUMBER.fullmatch(cell) else cell


def _state(connection: Connection, which: Which) -> Row[Any]:
    asked = {"pipeline": which.pipeline, "number": which.number}
    found = connection.exec_driver_sql(_STATE, asked).one_or_none()
    if found is None or which.pipeline not in TABLES:
        raise NotThere(f"{which.pipeline} has no generation {which.number}")
    return found


def _newest(connection: Connection, which: Which) -> Row[Any]:
    asked = {"pipeline": which.pipeline, "number": which.number}
    found = connection.exec_driver_sql(_NEWEST, asked).one_or_none()
    if found is None:
        raise NotThere(
            f"{which} was not compared yet: `electrored diff {which.pipeline} {which.number}` does it"
        )
    return found


def _changes(connection: Connection, found: Row[Any], most: int | None) -> Any:
    money = "amount" if TABLES[found.pipeline] is joined_sales else "total"
    asked = {"id": found.id, "money": money, "most": most}
    return connection.execute(_CHANGES, asked, execution_options={"yield_per": LINES_AT_ONCE})
