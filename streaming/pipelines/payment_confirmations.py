"""Shared by pipelines over payment-confirmations: the columns that the engine needs, and the checks."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from contracts.payments import (
    AMOUNT_LIMIT,
    FIRST_CONFIRMED_DAY,
    LAST_CONFIRMED_DAY,
    MOST_PAYMENT_ID_BYTES,
    STATUSES,
)
from contracts.texts import MOST_SALE_ID_BYTES
from streaming.engine.pipeline import Check, EventColumns
from streaming.pipelines.normal_texts import NormalTexts, name_checks
from streaming.pipelines.sale_events import micros, text_checks

# Their sources.
SOURCES = {"soap": True}
# A refund is a later fact about the payment, not a reversal of an event.
EVENTS = EventColumns(
    source="source",
    seq="seq",
    event_time="confirmed_at",
    recorded_time="recorded_at",
    sign=pl.lit(1, pl.Int64),
    sign_reads=None,
)


def _checks(of_text: Callable[..., tuple[Check, ...]]) -> tuple[Check, ...]:
    return (
        Check(f"status is neither {' nor '.join(STATUSES)}", pl.col("status").is_in(STATUSES), ("status",)),
        Check(
            f"confirmed_at is not between {FIRST_CONFIRMED_DAY} and {LAST_CONFIRMED_DAY}",
            pl.col("confirmed_at").is_between(
                micros(FIRST_CONFIRMED_DAY), micros(LAST_CONFIRMED_DAY), closed="left"
            ),
            ("confirmed_at",),
        ),
        *of_text("sale_id", MOST_SALE_ID_BYTES),
        *of_text("payment_id", MOST_PAYMENT_ID_BYTES),
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
NORMAL = NormalTexts(("sale_id", "payment_id"))
