"""A payment confirmation, the rules that make it valid (the pipelines check them again), and its event."""

from __future__ import annotations

from collections.abc import Iterable
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
from kafka_client.registry import Codec
from sources.position_store import Record

SOURCE = "soap"
# What an amount counts in; the codec refuses more digits behind it, though they be zeros.
_UNIT = Decimal("0.0001")
_FIRST, _LAST = (datetime.combine(day, time(), UTC) for day in (FIRST_CONFIRMED_DAY, LAST_CONFIRMED_DAY))


@dataclass(frozen=True)
class Confirmation:
    """The confirmation of one payment of one sale."""

    payment_id: str
    sale_id: str
    amount: Decimal
    currency: str
    status: str
    confirmed_at: datetime


def normal(confirmation: Confirmation) -> Confirmation:
    """Its ids by the one rule for texts, so that they match those of the sales."""
    return replace(
        confirmation,
        payment_id=texts.normal(confirmation.payment_id),
        sale_id=texts.normal(confirmation.sale_id),
    )


def refusal(confirmation: Confirmation) -> str | None:
    """Why a normal confirmation cannot be an event; None if it can."""
    for name, text, most in (
        ("payment_id", confirmation.payment_id, MOST_PAYMENT_ID_BYTES),
        ("sale_id", confirmation.sale_id, MOST_SALE_ID_BYTES),
    ):
        try:
            texts.name(text, most)
        except texts.Refused as error:
            return f"{name} {error}"
    if len(confirmation.currency) != 3 or not (
        confirmation.currency.isascii()
        and confirmation.currency.isalpha()
        and confirmation.currency.isupper()
    ):
        return "currency is not three capital letters"
    if confirmation.status not in STATUSES:
        return f"status is neither {' nor '.join(STATUSES)}"
    if not confirmation.amount.is_finite() or abs(confirmation.amount) >= AMOUNT_LIMIT:
        return "amount has more than 14 digits before the point"
    _, digits, exponent = confirmation.amount.as_tuple()
    # In digits, because arithmetic rounds to the context's 28.
    if isinstance(exponent, int) and exponent < -4 and any(digits[exponent + 4 :]):
        return "amount has more than 4 decimals"
    if confirmation.confirmed_at.tzinfo is None:
        return "confirmed_at is without a time zone"
    if not _FIRST <= confirmation.confirmed_at < _LAST:
        return f"confirmed_at is not between {FIRST_CONFIRMED_DAY} and {LAST_CONFIRMED_DAY}"
    return None


def events(
    codec: Codec, confirmations: Iterable[Confirmation], recorded_at: datetime, seq: int
) -> list[Record]:
    """Key and value of the event of each valid confirmation, numbered from `seq`."""
    records = []
    for number, one in enumerate(confirmations, seq):
        event = vars(one) | {"source": SOURCE, "seq": number, "recorded_at": recorded_at}
        event["amount"] = one.amount.quantize(_UNIT)
        records.append((one.sale_id.encode(), codec.encode(event)))
    return records
