"""Shared by pipelines over payment-confirmations: the columns that the engine needs, and the checks."""

from __future__ import annotations

from collections.abc import Callable

from contracts.payments import FIRST_CONFIRMED_DAY, LAST_CONFIRMED_DAY, MOST_PAYMENT_ID_BYTES, STATUSES
from contracts.texts import MOST_SALE_ID_BYTES
from contracts.times import micros_of
from streaming.engine.expressions import Text, Whole
from streaming.engine.normal_texts import NormalTexts
from streaming.engine.pipeline import Check, EventColumns
from streaming.pipelines.sale_events import MONEY_CHECKS, name_checks, text_checks

# Their sources.
SOURCES = {"soap": True}
EVENTS = EventColumns(
    source="source",
    seq="seq",
    event_time="confirmed_at",
    recorded_time="recorded_at",
    # A refund is a later fact about the payment, not a reversal of an event.
    sign=1,
)


def _checks(of_text: Callable[..., tuple[Check, ...]]) -> tuple[Check, ...]:
    return (
        Check(f"status is neither {' nor '.join(STATUSES)}", Text("status").is_in(*STATUSES)),
        Check(
            f"confirmed_at is not between {FIRST_CONFIRMED_DAY} and {LAST_CONFIRMED_DAY}",
            Whole("confirmed_at").is_between(micros_of(FIRST_CONFIRMED_DAY), micros_of(LAST_CONFIRMED_DAY)),
        ),
        *of_text("sale_id", MOST_SALE_ID_BYTES),
        *of_text("payment_id", MOST_PAYMENT_ID_BYTES),
        *MONEY_CHECKS,
    )


CHECKS_V1 = _checks(text_checks)
# From version 2 on texts are normalised.
CHECKS = _checks(name_checks)
NORMAL = NormalTexts(("sale_id", "payment_id"))
