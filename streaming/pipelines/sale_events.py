"""Shared by all pipelines over sales-events: the columns that the engine needs, and the checks.

The checks use only what a sale and its reversal have in common, so that both are accepted or both refused.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from contracts.calendar import FIRST_DAY, LAST_DAY
from contracts.texts import MOST_NAME_BYTES, MOST_SALE_ID_BYTES
from contracts.times import BEHIND_MICROS, FIRST_MICROS
from streaming.engine.expressions import Amount, Choose, Text, Whole
from streaming.engine.normal_texts import NormalTexts
from streaming.engine.pipeline import Check, EventColumns

# Their sources: change capture publishes its frontier all the time; files may never come.
SOURCES = {"postgres": True, "csv": False}
EVENTS = EventColumns(
    source="source",
    seq="seq",
    event_time="sold_at",
    recorded_time="recorded_at",
    sign=Choose(Text("operation").is_in("SALE"), 1, -1),
)
# As in the sales table: numeric(18,4).
AMOUNT_LIMIT = Decimal(10**14)


def text_checks(column: str, most: int = MOST_NAME_BYTES) -> tuple[Check, ...]:
    """Of version 1, which reads texts as they stand in the log."""
    return (*length_checks(column, most), Check(f"{column} holds a NUL", Text(column).lacks("\0")))


def name_checks(column: str, most: int = MOST_NAME_BYTES) -> tuple[Check, ...]:
    """Of normal texts: a name that holds what cannot be seen is null."""
    return (
        Check(f"{column} holds a control or invisible character", Text(column).is_known),
        *length_checks(column, most),
    )


def length_checks(column: str, most: int) -> tuple[Check, ...]:
    length = Text(column).length
    return (
        Check(f"{column} is empty", length > 0),
        Check(f"{column} is longer than {most} bytes", length <= most),
    )


# Of every event that is worth something.
MONEY_CHECKS = (
    Check("currency is not three capital letters", Text("currency").matches("[A-Z]{3}")),
    Check("amount has more than 14 digits before the point", Amount("amount").absolute < AMOUNT_LIMIT),
)


def _checks(of_text: Callable[..., tuple[Check, ...]]) -> tuple[Check, ...]:
    return (
        Check("operation is neither SALE nor REVERSAL", Text("operation").is_in("SALE", "REVERSAL")),
        Check(
            f"sold_at is not between {FIRST_DAY} and {LAST_DAY}",
            Whole("sold_at").is_between(FIRST_MICROS, BEHIND_MICROS),
        ),
        *of_text("sale_id", MOST_SALE_ID_BYTES),
        *of_text("country"),
        *of_text("city"),
        *of_text("salesman_id"),
        *MONEY_CHECKS,
    )


CHECKS_V1 = _checks(text_checks)
# From version 2 on texts are normalised.
CHECKS = _checks(name_checks)
NORMAL = NormalTexts(("sale_id", "country", "city", "salesman_id"), ("salesman_name", "product"))
