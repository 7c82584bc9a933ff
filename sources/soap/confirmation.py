"""A payment confirmation, and the rules that make it valid: those that the pipelines check again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal

from contracts import texts
from contracts.payments import (
    AMOUNT_LIMIT,
    FIRST_CONFIRMED_DAY,
    LAST_CONFIRMED_DAY,
    MOST_PAYMENT_ID_BYTES,
    STATUSES,
)
from contracts.texts import MOST_SALE_ID_BYTES

_FIRST, _LAST = (datetime.combine(day, time(), UTC) for day in (FIRST_CONFIRMED_DAY, LAST_CONFIRMED_DAY))


@dataclass(frozen=True)
class Confirmation:
    """What the service says about one payment of one sale."""

    payment_id: str
    sale_id: str
    amount: Decimal
    currency: str
    status: str
    confirmed_at: datetime


def normal(found: Confirmation) -> Confirmation:
    """With its ids by the one rule for texts, so that they meet those of the sales."""
    return replace(found, payment_id=texts.normal(found.payment_id), sale_id=texts.normal(found.sale_id))


def refusal(found: Confirmation) -> str | None:
    """Why a normal confirmation cannot be an event; None if it can."""
    for name, text, most in (
        ("payment_id", found.payment_id, MOST_PAYMENT_ID_BYTES),
        ("sale_id", found.sale_id, MOST_SALE_ID_BYTES),
    ):
        try:
            texts.name(text, most)
        except texts.Refused as error:
            return f"{name} {error}"
    if len(found.currency) != 3 or not (
        found.currency.isascii() and found.currency.isalpha() and found.currency.isupper()
    ):
        return "currency is not three capital letters"
    if found.status not in STATUSES:
        return f"status is neither {' nor '.join(STATUSES)}"
    if not found.amount.is_finite() or abs(found.amount) >= AMOUNT_LIMIT:
        return "amount has more than 14 digits before the point"
    _, digits, exponent = found.amount.as_tuple()
    # In digits, because arithmetic rounds to the context's 28.
    if isinstance(exponent, int) and exponent < -4 and any(digits[exponent + 4 :]):
        return "amount has more than 4 decimals"
    if found.confirmed_at.tzinfo is None:
        return "confirmed_at is without a time zone"
    if not _FIRST <= found.confirmed_at < _LAST:
        return f"confirmed_at is not between {FIRST_CONFIRMED_DAY} and {LAST_CONFIRMED_DAY}"
    return None
