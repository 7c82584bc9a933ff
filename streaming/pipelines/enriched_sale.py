"""The results of a joined sale: its status, its rows in the results database, its public value.

All of it is a function of the total, so that table and topic cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from contracts.payments import CONFIRMED, REFUNDED
from streaming.engine.windows import from_micros

PENDING, AMOUNT_MISMATCH = "PENDING", "AMOUNT_MISMATCH"

Item = Mapping[str, Any]


def status(amount: Decimal, currency: str, payments: Sequence[Item]) -> str:
    """The status of a sale by its payments, each as it was last confirmed.

    1. No payment: PENDING.  2. Payments, and all were given back: REFUNDED.  3. What is still confirmed decides: in the
    sale's currency and, together, its amount: CONFIRMED, else AMOUNT_MISMATCH. So of two payments of which one was
    given back, the other confirms.
    """
    if not payments:
        return PENDING
    confirmed = [payment for payment in payments if payment["status"] == CONFIRMED]
    if not confirmed:
        return REFUNDED
    in_currency = all(payment["currency"] == currency for payment in confirmed)
    paid = sum((payment["amount"] for payment in confirmed), Decimal(0))
    return CONFIRMED if in_currency and paid == amount else AMOUNT_MISMATCH


def rows(total: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each source that ever had the sale: one that was reversed has a count of 0 and is hidden by views.

    A payment without a sale is in state only. Where several sources have the sale its payments join none: each sale
    counts as pending, is marked ambiguous, and has the payments beside it.
    """
    sales, payments = _sales(total), _payments(total)
    ambiguous = sum(sale["sales_count"] != 0 for sale in sales) > 1
    as_json = json.dumps([payment | _as_text(payment) for payment in payments])
    return [
        {
            "sale_id": total["sale_id"],
            **sale,
            "status": status(sale["amount"], sale["currency"], () if ambiguous else payments),
            "payments": as_json,
            "ambiguous": ambiguous and sale["sales_count"] != 0,
        }
        for sale in sales
    ]


def public(total: Mapping[str, Any]) -> dict[str, Any] | None:
    """The value of the public topic; None while every sale is reversed."""
    sales = [sale for sale in _sales(total) if sale["sales_count"] != 0]
    if not sales:
        return None
    payments = _payments(total)
    joined: Sequence[Item] = payments if len(sales) == 1 else ()
    return {
        "sale_id": total["sale_id"],
        "sales": [sale | {"status": status(sale["amount"], sale["currency"], joined)} for sale in sales],
        "payments": payments,
        "ambiguous": len(sales) > 1,
    }


def _sales(total: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sale of each source, in order of their names; of a source's currencies the one that is not reversed."""
    by_source: dict[str, dict[str, Any]] = {}
    for _, item in total["sales"] or ():
        known = by_source.get(item["source"])
        # Of several that are reversed the newest, so that a row is a function of the facts and not of their order.
        if known is None or _standing(item) > _standing(known):
            by_source[item["source"]] = item
    return [
        {name: value for name, value in item.items() if name != "seq"}
        | {"amount": _money(item["amount"]), "sold_at": from_micros(item["sold_at"])}
        for _, item in sorted(by_source.items())
    ]


def _standing(item: Item) -> tuple[bool, int]:
    return item["sales_count"] != 0, item["seq"]


def _payments(total: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "payment_id": item["payment_id"],
            "amount": _money(item["amount"]),
            "currency": item["currency"],
            "status": item["status"],
            "confirmed_at": from_micros(item["confirmed_at"]),
        }
        for _, item in total["payments"] or ()
    ]


def _money(ten_thousandths: int) -> Decimal:
    return Decimal(ten_thousandths).scaleb(-4)


def _as_text(payment: Item) -> dict[str, str]:
    confirmed_at: datetime = payment["confirmed_at"]
    return {"amount": str(payment["amount"]), "confirmed_at": confirmed_at.isoformat()}
