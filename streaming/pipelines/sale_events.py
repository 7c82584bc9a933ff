"""Shared by all pipelines over sales-events: the columns that the engine needs, and the checks.

The checks use only what a sale and its reversal have in common, so that both are accepted or both refused.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl

from contracts.calendar import FIRST_DAY, LAST_DAY
from contracts.texts import MOST_NAME_BYTES, MOST_SALE_ID_BYTES
from streaming.engine.pipeline import Check, EventColumns
from streaming.pipelines.normal_texts import NormalTexts, name_checks

# Their sources: change capture publishes its frontier all the time; files may never come.
SOURCES = {"postgres": True, "csv": False}
EVENTS = EventColumns(
    source="source",
    seq="seq",
    event_time="sold_at",
    recorded_time="recorded_at",
    sign=pl.when(pl.col("operation") == "SALE").then(1).otherwise(-1).cast(pl.Int64),
    sign_reads="operation",
)


def micros(day: object) -> int:
    moment = datetime.fromisoformat(f"{day}T00:00:00").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000


# As in the sales table: numeric(18,4).
AMOUNT_LIMIT = Decimal(10**14)


def text_checks(column: str, most: int = MOST_NAME_BYTES) -> tuple[Check, ...]:
    length = pl.col(column).str.len_bytes()
    return (
        Check(f"{column} is empty", length > 0, (column,)),
        Check(f"{column} is longer than {most} bytes", length <= most, (column,)),
        Check(f"{column} holds a NUL", ~pl.col(column).str.contains("\0", literal=True), (column,)),
    )


def _checks(of_text: Callable[..., tuple[Check, ...]]) -> tuple[Check, ...]:
    return (
        Check(
            "operation is neither SALE nor REVERSAL",
            pl.col("operation").is_in(["SALE", "REVERSAL"]),
            ("operation",),
        ),
        Check(
            f"sold_at is not between {FIRST_DAY} and {LAST_DAY}",
            pl.col("sold_at").is_between(micros(FIRST_DAY), micros(LAST_DAY), closed="left"),
            ("sold_at",),
        ),
        *of_text("sale_id", MOST_SALE_ID_BYTES),
        *of_text("country"),
        *of_text("city"),
        *of_text("salesman_id"),
        Check(
            "currency is not three capital letters",
            pl.col("currency").str.contains("^[A-Z]{3}$"),
            ("currency",),
        ),
        Check(
            "amount has more than 14 digits before the point",
            pl.col("amount").abs() < AMOUNT_LIMIT,
            ("amount",),
        ),
    )


CHECKS_V1 = _checks(text_checks)
# From version 2 on texts are normalised.
CHECKS = _checks(name_checks)
NORMAL = NormalTexts(("sale_id", "country", "city", "salesman_id"), ("salesman_name", "product"))
