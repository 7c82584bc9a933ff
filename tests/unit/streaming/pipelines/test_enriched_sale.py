"""What a joined sale is shown as."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from streaming.engine.windows import to_micros
from streaming.pipelines.enriched_sale import public, rows, status

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEN = Decimal("10.0000")


def paid(amount: str = "10", currency: str = "EUR", status: str = "CONFIRMED") -> dict[str, Any]:
    return {"amount": Decimal(amount), "currency": currency, "status": status}


@pytest.mark.parametrize(
    ("payments", "expected"),
    [
        ([], "PENDING"),
        ([paid()], "CONFIRMED"),
        ([paid("4.0001"), paid("5.9999")], "CONFIRMED"),
        ([paid("9.9999")], "AMOUNT_MISMATCH"),
        ([paid(), paid()], "AMOUNT_MISMATCH"),
        ([paid(currency="USD")], "AMOUNT_MISMATCH"),
        ([paid("5"), paid("5", "USD")], "AMOUNT_MISMATCH"),
        ([paid(status="REFUNDED")], "REFUNDED"),
        ([paid("3", "USD", "REFUNDED")], "REFUNDED"),
        ([paid(status="REFUNDED"), paid()], "CONFIRMED"),
        ([paid(status="REFUNDED"), paid("9")], "AMOUNT_MISMATCH"),
    ],
    ids=str,
)
def test_status_of_a_sale_of_ten_euros(payments: list[dict[str, Any]], expected: str) -> None:
    assert status(TEN, "EUR", payments) == expected


def test_a_sale_of_nothing_is_confirmed_by_a_payment_of_nothing() -> None:
    assert status(Decimal(0), "EUR", []) == "PENDING"
    assert status(Decimal(0), "EUR", [paid("0")]) == "CONFIRMED"


def sale(source: str = "postgres", **changes: Any) -> tuple[str, dict[str, Any]]:
    item = {
        "source": source, "currency": "EUR", "sales_count": 1, "quantity": 2, "amount": 100_000, "seq": 1,
        "sold_at": to_micros(NOON), "country": "DE", "city": "Berlin", "salesman_id": "s1", "salesman_name": "Ada",
        "product": "tv",
    }  # fmt: skip
    return "electrored.sales_item", item | changes


def payment(payment_id: str = "p1", **changes: Any) -> tuple[str, dict[str, Any]]:
    item = {
        "payment_id": payment_id, "confirmed_at": to_micros(NOON + timedelta(minutes=5)), "seq": 3, "source": "soap",
        "amount": 100_000, "currency": "EUR", "status": "CONFIRMED",
    }  # fmt: skip
    return "electrored.payments_item", item | changes


def total(*items: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    sales = [item for item in items if item[0] == "electrored.sales_item"]
    payments = [item for item in items if item[0] == "electrored.payments_item"]
    return {"sale_id": "s-1", "sales": sales or None, "payments": payments or None}


def test_a_sale_and_its_payment_are_one_row_and_one_public_value() -> None:
    found = total(sale(), payment())
    (row,) = rows(found)
    assert (row["status"], row["amount"], row["sold_at"], row["ambiguous"]) == ("CONFIRMED", TEN, NOON, False)
    shown_payment = {"payment_id": "p1", "amount": "10.0000", "currency": "EUR", "status": "CONFIRMED"}
    assert json.loads(row["payments"]) == [shown_payment | {"confirmed_at": "2026-03-01T12:05:00+00:00"}]
    shown = public(found)
    assert shown is not None
    assert [s["status"] for s in shown["sales"]] == ["CONFIRMED"]
    assert [p["payment_id"] for p in shown["payments"]] == ["p1"]


def test_a_reversed_sale_has_a_hidden_row_and_no_public_value() -> None:
    found = total(sale(sales_count=0, amount=0, quantity=0), payment())
    (row,) = rows(found)
    assert row["sales_count"] == 0
    assert public(found) is None


def test_of_a_corrected_currency_the_sale_that_stands_is_shown() -> None:
    old = sale(sales_count=0, amount=0, seq=2)
    new = sale(currency="USD", seq=3)
    for items in ((old, new), (new, old)):
        (row,) = rows(total(*items, payment(currency="USD")))
        assert (row["currency"], row["status"], row["sales_count"]) == ("USD", "CONFIRMED", 1)


def test_when_one_of_two_sources_takes_its_sale_back_the_payment_joins_the_other() -> None:
    found = total(sale("csv", sales_count=0, amount=0), sale("postgres"), payment())
    expected = [("csv", 0, False), ("postgres", 1, False)]
    assert [(row["source"], row["sales_count"], row["ambiguous"]) for row in rows(found)] == expected
    assert rows(found)[1]["status"] == "CONFIRMED"
    shown = public(found)
    assert shown is not None
    assert [(s["source"], s["status"]) for s in shown["sales"]] == [("postgres", "CONFIRMED")]
    assert not shown["ambiguous"]
