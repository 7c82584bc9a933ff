"""What all pipelines over sales-events share: the columns the engine has to know, and what makes an event valid.

Validity looks only at what a sale and its reversal have in common, so that both are taken or both are refused.
"""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from contracts.calendar import FIRST_DAY, LAST_DAY
from streaming.engine.pipeline import Check, EventColumns

EVENTS = EventColumns(
    source="source",
    seq="seq",
    event_time="sold_at",
    recorded_time="recorded_at",
    sign=pl.when(pl.col("operation") == "SALE").then(1).otherwise(-1).cast(pl.Int64),
    sign_reads="operation",
)


def _micros(day: object) -> int:
    moment = datetime.fromisoformat(f"{day}T00:00:00").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000


def _not_empty(column: str) -> Check:
    return Check(f"{column} is empty", pl.col(column).str.len_bytes() > 0, (column,))


CHECKS = (
    Check(
        "operation is neither SALE nor REVERSAL",
        pl.col("operation").is_in(["SALE", "REVERSAL"]),
        ("operation",),
    ),
    Check(
        f"sold_at is not between {FIRST_DAY} and {LAST_DAY}",
        pl.col("sold_at").is_between(_micros(FIRST_DAY), _micros(LAST_DAY), closed="left"),
        ("sold_at",),
    ),
    _not_empty("sale_id"),
    _not_empty("country"),
    _not_empty("city"),
    _not_empty("salesman_id"),
    Check(
        "currency is not three capital letters", pl.col("currency").str.contains("^[A-Z]{3}$"), ("currency",)
    ),
)
