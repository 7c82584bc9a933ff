"""Generations, and the difference of one from the active one; each response from one snapshot.

`streaming/replay` computes differences, `contracts/differences.py` defines their changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row

from api.generation_schemas import Difference, Generations, span
from api.queries import CITY, ENRICHED, SALESMAN
from contracts.differences import Shape, changes, csv_of
from contracts.tables import city_totals, joined_sales, salesman_totals

SHAPES = {CITY: Shape(city_totals), SALESMAN: Shape(salesman_totals), ENRICHED: Shape(joined_sales)}

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
    now, difference = _state(connection, which), _newest(connection, which)
    # The changes of a retired generation are deleted in batches; their totals stay.
    shape = SHAPES[which.pipeline]
    rows = [] if now.state == "retired" else list(changes(connection, shape, difference.id, limit))
    before, after = (
        {currency: Decimal(total) for currency, total in totals.items()}
        for totals in (difference.before_total, difference.after_total)
    )
    zero = Decimal("0.0000")
    shown = {
        **difference._mapping,
        "state": now.state,
        "is_current": (now.active, now.promotion_number) == (difference.base, difference.promotion_number),
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
        "changes": [{**vars(row), "window": span(row.window_start, row.window_end)} for row in rows],
    }
    return Difference.model_validate(shown).model_dump_json().encode()


def downloadable(connection: Connection, which: Which) -> int:
    """The id of the newest difference, if its rows are there. Raises NotThere."""
    now, difference = _state(connection, which), _newest(connection, which)
    if now.state == "retired":
        raise NotThere(f"{which} was retired, and the rows of its difference with it")
    return int(difference.id)


def downloaded(connection: Connection, which: Which) -> Iterator[str]:
    """Every change of the newest difference, as CSV in pieces. Raises NotThere, before the first piece."""
    difference = downloadable(connection, which)
    yield from csv_of(connection, SHAPES[which.pipeline], difference)


def _state(connection: Connection, which: Which) -> Row[Any]:
    parameters = {"pipeline": which.pipeline, "number": which.number}
    row = connection.exec_driver_sql(_STATE, parameters).one_or_none()
    if row is None or which.pipeline not in SHAPES:
        raise NotThere(f"{which.pipeline} has no generation {which.number}")
    return row


def _newest(connection: Connection, which: Which) -> Row[Any]:
    parameters = {"pipeline": which.pipeline, "number": which.number}
    row = connection.exec_driver_sql(_NEWEST, parameters).one_or_none()
    if row is None:
        raise NotThere(
            f"{which} was not compared yet: `electrored diff {which.pipeline} {which.number}` does it"
        )
    return row
