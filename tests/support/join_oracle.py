"""The join of sales and payments, computed from their whole history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any


def oracle(events: Iterable[Mapping[str, Any]], confirmations: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """By sale_id: the sales that stand in each source, the payments as last confirmed, and the status of each sale."""
    live: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for event in events:
        if event["operation"] == "SALE":
            live[event["sale_id"]][event["source"]] = event
        else:
            del live[event["sale_id"]][event["source"]]
    paid: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for payment in sorted(confirmations, key=lambda p: (p["confirmed_at"], p["seq"])):
        paid[payment["sale_id"]][payment["payment_id"]] = payment
    answers = {}
    for sale_id, by_source in live.items():
        if not by_source:
            continue
        joined = list(paid[sale_id].values()) if len(by_source) == 1 else []
        answers[sale_id] = (
            {source: (sale_facts(sale), _status(sale, joined)) for source, sale in by_source.items()},
            {p["payment_id"]: (p["amount"], p["currency"], p["status"]) for p in paid[sale_id].values()},
            len(by_source) > 1,
        )
    return answers


def sale_facts(sale: Any) -> tuple[Any, ...]:
    names = ("sold_at", "country", "city", "salesman_id", "salesman_name", "product", "quantity", "amount")
    return tuple(sale[name] for name in (*names, "currency"))


def _status(sale: Mapping[str, Any], joined: list[Mapping[str, Any]]) -> str:
    if not joined:
        return "PENDING"
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for payment in joined:
        if payment["status"] == "CONFIRMED":
            sums[payment["currency"]] += payment["amount"]
    if not sums:
        return "REFUNDED"
    return "CONFIRMED" if sums == {sale["currency"]: sale["amount"]} else "AMOUNT_MISMATCH"
