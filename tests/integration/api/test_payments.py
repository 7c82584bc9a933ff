"""What is answered about payments: how a day's sales stand, and one sale."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.queries import ENRICHED
from tests.support.api import DAY, ApiResults

SUMMARY = "/api/v1/payments/summary"
SALES = "/api/v1/sales"
PAYMENT = {
    "payment_id": "p1",
    "amount": "10.0000",
    "currency": "EUR",
    "status": "CONFIRMED",
    "confirmed_at": "2026-11-22T12:05:00+00:00",
}


def ask(client: TestClient, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_day_is_summed_by_status_country_city_and_currency(client: TestClient, filled: ApiResults) -> None:
    filled.sale("a", "10.5000", status="CONFIRMED")
    filled.sale("b", "0.0001", status="CONFIRMED")
    filled.sale("c", "3", status="CONFIRMED", country="AT", city="Graz")
    filled.sale("d", "4", status="CONFIRMED", currency="USD")
    filled.sale("e", "5", status="REFUNDED")
    filled.sale("hidden", "7", sales_count=0)
    filled.sale("before", "7", sold_at=DAY - timedelta(microseconds=1))
    filled.sale("after", "7", sold_at=DAY + timedelta(days=1))
    answer = ask(client, SUMMARY, date="2026-11-22")
    assert [tuple(row.values()) for row in answer["data"]] == [
        ("CONFIRMED", "EUR", 1, "3.0000", "AT", "Graz"),
        ("CONFIRMED", "EUR", 2, "10.5001", "DE", "Berlin"),
        ("CONFIRMED", "USD", 1, "4.0000", "DE", "Berlin"),
        ("REFUNDED", "EUR", 1, "5.0000", "DE", "Berlin"),
    ]
    assert answer["by_status"] == [
        {"status": "CONFIRMED", "currency": "EUR", "sales_count": 3, "amount": "13.5001"},
        {"status": "CONFIRMED", "currency": "USD", "sales_count": 1, "amount": "4.0000"},
        {"status": "REFUNDED", "currency": "EUR", "sales_count": 1, "amount": "5.0000"},
    ]
    assert answer["window"] == {
        "start": "2026-11-22T00:00:00Z",
        "end": "2026-11-23T00:00:00Z",
        "time_zone": "UTC",
    }
    assert answer["generation"] == 1
    assert answer["freshness"] == {
        "watermark": None,
        "updated_at": "2026-11-22T13:00:00Z",
        "future_sales": 1,
    }


def test_the_latest_day_with_sales_is_the_default(client: TestClient, filled: ApiResults) -> None:
    assert ask(client, SUMMARY)["window"] == {"start": None, "end": None, "time_zone": "UTC"}
    filled.sale("a", sold_at=DAY - timedelta(days=3))
    filled.sale("hidden", sales_count=0)
    answer = ask(client, SUMMARY)
    assert answer["window"]["start"] == "2026-11-19T00:00:00Z"
    assert [row["sales_count"] for row in answer["data"]] == [1]


def test_days_are_those_of_the_generations_time_zone(client: TestClient, empty: ApiResults) -> None:
    empty.generation(ENRICHED, time_zone="Asia/Kolkata")
    empty.promote(ENRICHED)
    empty.sale("a", sold_at=DAY - timedelta(hours=5))
    answer = ask(client, SUMMARY)
    assert answer["window"]["start"] == "2026-11-21T18:30:00Z"
    assert ask(client, SUMMARY, date="2026-11-22")["data"] == answer["data"]


def test_pending_is_shown_as_unpaid_when_both_watermarks_are_seven_days_past_it(
    client: TestClient, filled: ApiResults
) -> None:
    sold_at = DAY + timedelta(hours=12)
    due = sold_at + timedelta(days=7)
    filled.sale("waits", sold_at=sold_at)
    filled.sale("paid", sold_at=sold_at, status="CONFIRMED", payments=[PAYMENT])

    def statuses() -> set[str]:
        found = {row["status"] for row in ask(client, SUMMARY)["data"]}
        assert ask(client, f"{SALES}/waits")["sales"][0]["status"] in found
        return found

    assert statuses() == {"PENDING", "CONFIRMED"}
    filled.watermarks(ENRICHED, due + timedelta(days=1), due - timedelta(microseconds=1))
    assert statuses() == {"PENDING", "CONFIRMED"}
    filled.watermarks(ENRICHED, due + timedelta(days=1))
    assert statuses() == {"PENDING", "CONFIRMED"}, "one partition of two says nothing"
    etag = client.get(SUMMARY).headers["etag"]
    filled.watermarks(ENRICHED, due, due)
    assert client.get(SUMMARY, headers={"If-None-Match": etag}).status_code == 200
    assert statuses() == {"UNPAID", "CONFIRMED"}


def test_a_sale_has_its_payments_and_status(client: TestClient, filled: ApiResults) -> None:
    filled.sale("s/1 ü", status="CONFIRMED", payments=[PAYMENT])
    assert ask(client, f"{SALES}/s/1 ü") == {
        "sale_id": "s/1 ü",
        "sales": [
            {
                "source": "postgres",
                "status": "CONFIRMED",
                "sold_at": "2026-11-22T12:00:00Z",
                "country": "DE",
                "city": "Berlin",
                "salesman_id": "s1",
                "salesman_name": "Ada",
                "product": "tv",
                "quantity": 1,
                "amount": "10.0000",
                "currency": "EUR",
                "sales_count": 1,
            }
        ],
        "payments": [PAYMENT | {"confirmed_at": "2026-11-22T12:05:00Z"}],
        "ambiguous": False,
        "freshness": {"watermark": None, "updated_at": "2026-11-22T13:00:00Z"},
        "generation": 1,
    }


def test_a_sale_in_two_sources_is_shown_for_each(client: TestClient, filled: ApiResults) -> None:
    for source in ("postgres", "csv"):
        filled.sale("s1", source=source, payments=[PAYMENT], ambiguous=True)
    answer = ask(client, f"{SALES}/s1")
    assert [(sale["source"], sale["status"]) for sale in answer["sales"]] == [
        ("csv", "PENDING"),
        ("postgres", "PENDING"),
    ]
    assert answer["ambiguous"]
    assert [payment["payment_id"] for payment in answer["payments"]] == ["p1"]


def test_a_sale_that_nobody_has_is_not_found(client: TestClient, filled: ApiResults) -> None:
    filled.sale("reversed", sales_count=0)
    for sale_id in ("reversed", "unknown"):
        answer = client.get(f"{SALES}/{sale_id}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert sale_id in answer.json()["detail"]


def test_another_generations_sales_are_not_shown(client: TestClient, filled: ApiResults) -> None:
    filled.generation(ENRICHED, 2)
    filled.sale("s1", generation=2)
    assert client.get(f"{SALES}/s1").status_code == 404
    assert ask(client, SUMMARY)["data"] == []
    filled.promote(ENRICHED, 2)
    assert ask(client, f"{SALES}/s1")["generation"] == 2


@pytest.mark.parametrize("path", [SUMMARY, f"{SALES}/s1"])
def test_nothing_is_sent_again_while_nothing_changed(
    client: TestClient, filled: ApiResults, path: str
) -> None:
    filled.sale("s1")
    first = client.get(path)
    tag = {"If-None-Match": first.headers["etag"]}
    assert client.get(path, headers=tag).status_code == 304
    assert client.get(path).content == first.content
    filled.sale("s2")
    assert client.get(path, headers=tag).status_code == 200


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        (SUMMARY, {"date": "20261122"}),
        (SUMMARY, {"date": "1899-12-31"}),
        (SUMMARY, {"day": "2026-11-22"}),
        (f"{SALES}/a%00b", {}),
        (f"{SALES}/{'x' * 1001}", {}),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: TestClient, filled: ApiResults, path: str, parameters: dict[str, str]
) -> None:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] in {"date", "day", "sale_id"}


def test_a_sale_below_zero_is_not_summed_up_and_shows_its_count(
    client: TestClient, filled: ApiResults
) -> None:
    filled.sale("good", "10")
    filled.sale("broken", "-7", sales_count=-1, quantity=-1)
    answer = client.get("/api/v1/payments/summary").json()
    assert [(r["sales_count"], r["amount"]) for r in answer["by_status"]] == [(1, "10.0000")]
    assert answer["negative_groups"] == 1
    (sale,) = client.get("/api/v1/sales/broken").json()["sales"]
    assert (sale["sales_count"], sale["amount"]) == (-1, "-7.0000")
    (sale,) = client.get("/api/v1/sales/good").json()["sales"]
    assert sale["sales_count"] == 1


def test_a_day_with_nothing_but_sales_below_zero_is_not_the_latest(
    client: TestClient, filled: ApiResults
) -> None:
    filled.sale("good", "10", sold_at=DAY - timedelta(hours=1))
    filled.sale("broken", "-7", sales_count=-1, quantity=-1)
    assert [r["sales_count"] for r in ask(client, SUMMARY)["by_status"]] == [1]
    answer = ask(client, SUMMARY, date="2026-11-22")
    assert (answer["by_status"], answer["negative_groups"]) == ([], 1)


@pytest.mark.parametrize("kind", ["*", "another sale's", "another path's", "weak"])
def test_row_35_what_there_is_not_is_never_unchanged(
    client: TestClient, filled: ApiResults, kind: str
) -> None:
    filled.sale("s1")
    tag = client.get(f"{SALES}/s1").headers["etag"]
    tags = {
        "*": "*",
        "another sale's": tag,
        "another path's": client.get(SUMMARY).headers["etag"],
        "weak": f"W/{tag}",
    }
    for _ in range(2):
        assert client.get(f"{SALES}/none", headers={"If-None-Match": tags[kind]}).status_code == 404
    assert client.get(f"{SALES}/s1", headers={"If-None-Match": "*"}).status_code == 304
    assert (
        client.get(f"{SALES}/s1", headers=[("If-None-Match", '"x"'), ("If-None-Match", tag)]).status_code
        == 304
    )
    filled.sale("s1", source="csv", sales_count=0)
    assert client.head(f"{SALES}/s1", headers={"If-None-Match": tag}).status_code == 200, "something changed"
