"""One sale and one payment confirmation, with what a test changes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sale_event(seq: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "source": "postgres", "seq": seq, "sale_id": f"sale-{seq}", "operation": "SALE",
        "sold_at": NOON, "recorded_at": NOON, "city": "Berlin", "country": "DE",
        "salesman_id": "s1", "salesman_name": "Ada", "product": "tv", "quantity": 1,
        "amount": Decimal("10.0000"), "currency": "EUR",
    } | changes  # fmt: skip


def confirmation(seq: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "source": "soap", "seq": seq, "payment_id": "p1", "sale_id": "s1", "amount": Decimal("10.0000"),
        "currency": "EUR", "status": "CONFIRMED", "confirmed_at": NOON, "recorded_at": NOON,
    } | changes  # fmt: skip
