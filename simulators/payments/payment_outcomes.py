"""What becomes of a sale's payment: a function of the seed and the sale alone.

Most are confirmed minutes later, some never, some twice, some with another amount, some refunded.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

NEVER, TWICE, OTHER_AMOUNT, REFUNDED = 0.03, 0.03, 0.02, 0.02


@dataclass(frozen=True, slots=True)
class Paid:
    """What the service sees of a sale."""

    sale_id: str
    sold_at: datetime
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the service's list, and when it is added. A refund has the id of its payment."""

    due_at: datetime
    payment_id: str
    sale_id: str
    amount: Decimal
    currency: str
    status: str
    confirmed_at: datetime


def fate(seed: int, sale: Paid, delay: timedelta) -> list[Entry]:
    """The entries of a sale, in the order of their time; `delay` is the usual time between sale and payment."""
    rng = random.Random(f"{seed}/payments/{sale.sale_id}")
    payment_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    at = sale.sold_at + delay * rng.uniform(0.5, 1.5)
    entry = Entry(at, payment_id, sale.sale_id, sale.amount, sale.currency, "CONFIRMED", at)
    draw = rng.random()
    if draw < NEVER:
        return []
    if draw < NEVER + TWICE:
        return [entry, replace(entry, due_at=at + delay * rng.uniform(0, 2))]
    if draw < NEVER + TWICE + OTHER_AMOUNT:
        return [replace(entry, amount=_other(sale.amount, rng))]
    if draw < NEVER + TWICE + OTHER_AMOUNT + REFUNDED:
        back = at + delay * rng.uniform(1, 5)
        return [entry, replace(entry, status="REFUNDED", due_at=back, confirmed_at=back)]
    return [entry]


def _other(amount: Decimal, rng: random.Random) -> Decimal:
    """Less by a few percent, or by one if that is nothing: a fee was kept."""
    other = amount - (amount * rng.randint(1, 9) / 100).quantize(Decimal("0.01"))
    return other if other != amount else amount - 1
