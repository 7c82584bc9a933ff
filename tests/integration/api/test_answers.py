"""What the two questions answer: ranks, filters, windows, exact decimals, freshness."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.queries import CITY, SALESMAN
from tests.support.api import CITIES, DAY, SALESMEN, ApiResults, ask


def test_cities_are_ranked_within_their_currency_and_ties_by_id(
    client: TestClient, filled: ApiResults
) -> None:
    filled.city("Berlin", "10")
    filled.city("Aachen", "20.5")
    filled.city("Ulm", "10")
    filled.city("Graz", "10", country="AT")
    filled.city("Basel", "7", country="CH", currency="CHF")
    filled.city("Hidden", "0", sales_count=0)
    assert [(r["currency"], r["rank"], r["country"], r["city"]) for r in ask(client, CITIES)["data"]] == [
        ("CHF", 1, "CH", "Basel"),
        ("EUR", 1, "DE", "Aachen"),
        ("EUR", 2, "AT", "Graz"),
        ("EUR", 3, "DE", "Berlin"),
        ("EUR", 4, "DE", "Ulm"),
    ]


def test_salesmen_are_ranked_within_country_and_currency(client: TestClient, filled: ApiResults) -> None:
    filled.salesman("s2", "5")
    filled.salesman("s1", "5")
    filled.salesman("s3", "9")
    filled.salesman("s4", "1", currency="USD", salesman_name=None)
    filled.salesman("s5", "2", country="AT")
    data = ask(client, SALESMEN)["data"]
    assert [(r["country"], r["currency"], r["rank"], r["salesman_id"]) for r in data] == [
        ("AT", "EUR", 1, "s5"),
        ("DE", "EUR", 1, "s3"),
        ("DE", "EUR", 2, "s1"),
        ("DE", "EUR", 3, "s2"),
        ("DE", "USD", 1, "s4"),
    ]
    assert data[0] == {
        "country": "AT",
        "rank": 1,
        "salesman_id": "s5",
        "salesman_name": "Name of s5",
        "currency": "EUR",
        "total": "2.0000",
        "sales_count": 1,
    }
    assert data[4]["salesman_name"] is None


def test_filters_and_limit_apply_to_each_list_and_ranks_to_what_is_selected(
    client: TestClient, filled: ApiResults
) -> None:
    for n in range(12):
        filled.city(f"c{n:02}", str(n), country="DE" if n % 2 else "AT")
        filled.city(f"c{n:02}", str(n), currency="USD")
    assert len(ask(client, CITIES)["data"]) == 20
    assert [r["city"] for r in ask(client, CITIES, currency="EUR", country="AT", limit=2)["data"]] == [
        "c10",
        "c08",
    ]
    assert [r["rank"] for r in ask(client, CITIES, currency="EUR", country="AT", limit=2)["data"]] == [1, 2]
    assert ask(client, CITIES, country="FR")["data"] == []


@pytest.mark.parametrize(
    "total", ["0.0001", "-0.0001", "0", "1234567890123456789012345678901234.5678", "-9999999999.9990"]
)
def test_totals_are_strings_of_exact_decimals(client: TestClient, filled: ApiResults, total: str) -> None:
    filled.city("Berlin", total)
    shown = ask(client, CITIES)["data"][0]["total"]
    assert Decimal(shown) == Decimal(total)
    assert len(shown.split(".")[1]) == 4
    assert "E" not in shown


def test_the_latest_window_that_has_data_is_the_default(client: TestClient, filled: ApiResults) -> None:
    filled.city("Old", "1", window_start=DAY - timedelta(days=1), window_end=DAY)
    filled.city("New", "1")
    tomorrow: dict[str, Any] = {
        "window_start": DAY + timedelta(days=1),
        "window_end": DAY + timedelta(days=2),
    }
    filled.city("Hidden", "0", sales_count=0, **tomorrow)
    assert ask(client, CITIES)["window"] == {
        "start": "2026-11-22T00:00:00Z",
        "end": "2026-11-23T00:00:00Z",
        "time_zone": "UTC",
    }
    assert [r["city"] for r in ask(client, CITIES, date="2026-11-21")["data"]] == ["Old"]


def test_an_unknown_window_is_empty_with_its_bounds(client: TestClient, empty: ApiResults) -> None:
    empty.generation(CITY, time_zone="Europe/Berlin")
    empty.generation(SALESMAN, calendar="calendar-month", time_zone="Europe/Berlin")
    empty.promote(CITY)
    empty.promote(SALESMAN)
    assert ask(client, CITIES, date="2026-03-29") == {
        "window": {
            "start": "2026-03-28T23:00:00Z",
            "end": "2026-03-29T22:00:00Z",
            "time_zone": "Europe/Berlin",
        },
        "data": [],
        "freshness": {
            "watermark": None,
            "updated_at": None,
            "is_final": False,
            "restated_at": None,
            "future_sales": 0,
        },
        "late": [],
        "negative_groups": 0,
        "generation": 1,
    }
    window = ask(client, SALESMEN, at="2026-02-28")["window"]
    assert (window["start"], window["end"]) == ("2026-01-31T23:00:00Z", "2026-02-28T23:00:00Z")


def test_any_day_of_thirty_asks_for_their_window(client: TestClient, filled: ApiResults) -> None:
    start = ask(client, SALESMEN, at="2026-11-22")["window"]["start"]
    assert start == "2026-11-03T00:00:00Z"
    assert ask(client, SALESMEN, at="2026-11-03")["window"]["start"] == start
    assert ask(client, SALESMEN, at="2026-12-02")["window"]["start"] == start
    assert ask(client, SALESMEN, at="2026-12-03")["window"]["start"] == "2026-12-03T00:00:00Z"


def test_an_empty_database_answers_without_a_window(client: TestClient, filled: ApiResults) -> None:
    answer = ask(client, CITIES)
    assert answer["window"] == {"start": None, "end": None, "time_zone": "UTC"}
    assert answer["data"] == []


def test_a_window_is_final_when_every_partition_is_past_its_end_and_grace(
    client: TestClient, filled: ApiResults
) -> None:
    filled.city("Berlin", "1")
    end = DAY + timedelta(days=1, hours=1)
    before = end - timedelta(microseconds=1)

    def freshness() -> tuple[str | None, bool]:
        found = ask(client, CITIES)["freshness"]
        return found["watermark"], found["is_final"]

    assert freshness() == (None, False)
    filled.watermarks(CITY, end)
    assert freshness() == (None, False), "one partition of two says nothing"
    filled.watermarks(CITY, end, None)
    assert freshness() == (None, False)
    filled.watermarks(CITY, end + timedelta(hours=3), before)
    assert freshness() == ("2026-11-23T00:59:59.999999Z", False)
    filled.watermarks(CITY, end + timedelta(hours=3), end)
    assert freshness() == ("2026-11-23T01:00:00Z", True)


def test_what_came_late_is_told_by_currency_with_the_newest_restatement(
    client: TestClient, filled: ApiResults
) -> None:
    first, second = DAY + timedelta(days=2), DAY + timedelta(days=3)
    filled.city("Berlin", "1", late_count=2, late_amount=Decimal("5.5"), restated_at=first)
    filled.city("Ulm", "0", sales_count=0, late_count=1, late_amount=Decimal("-7"), restated_at=second)
    filled.city("Graz", "1", country="AT")
    filled.city("Basel", "1", currency="CHF", late_count=1, late_amount=Decimal("0.0001"), restated_at=first)
    answer = ask(client, CITIES)
    assert answer["late"] == [
        {"currency": "CHF", "count": 1, "amount": "0.0001"},
        {"currency": "EUR", "count": 3, "amount": "-1.5000"},
    ]
    assert answer["freshness"]["restated_at"] == "2026-11-25T00:00:00Z"
    assert ask(client, CITIES, country="AT")["late"] == []
    assert ask(client, CITIES, currency="CHF")["freshness"]["restated_at"] == "2026-11-24T00:00:00Z"


def test_names_may_hold_anything(client: TestClient, filled: ApiResults) -> None:
    name = "Ça'); DROP TABLE sales; -- % :country %(x)s \\ | 日本"
    filled.city(name, "1", country=name)
    assert ask(client, CITIES, country=name)["data"][0]["city"] == name


def test_a_group_below_zero_is_in_no_list_and_takes_no_rank_but_is_counted(
    client: TestClient, filled: ApiResults
) -> None:
    """Its total may be anything: its reversals may be of sales that were never counted."""
    filled.city("Aachen", "20.5")
    filled.city("Broken", "500", sales_count=-1)
    filled.city("Broken", "-5", country="AT", sales_count=-3)
    answer = ask(client, CITIES)
    assert [(r["rank"], r["city"]) for r in answer["data"]] == [(1, "Aachen")]
    assert answer["negative_groups"] == 2
    assert ask(client, CITIES, country="AT")["negative_groups"] == 1
    filled.salesman("s1", "5")
    assert ask(client, SALESMEN)["negative_groups"] == 0
    filled.salesman("s2", "9", sales_count=-1)
    answer = ask(client, SALESMEN)
    assert [r["salesman_id"] for r in answer["data"]] == ["s1"]
    assert answer["negative_groups"] == 1


def test_a_window_with_nothing_but_groups_below_zero_is_not_the_latest(
    client: TestClient, filled: ApiResults
) -> None:
    """Its list would be empty; a request for it returns their number."""
    before: dict[str, Any] = {"window_start": DAY - timedelta(days=1), "window_end": DAY}
    filled.city("Aachen", "20.5", **before)
    filled.salesman("s1", "5", **before)
    filled.city("Broken", "-5", sales_count=-1)
    filled.salesman("s2", "-5", sales_count=-1)
    assert [r["city"] for r in ask(client, CITIES)["data"]] == ["Aachen"]
    assert [r["salesman_id"] for r in ask(client, SALESMEN)["data"]] == ["s1"]
    answer = ask(client, CITIES, date="2026-11-22")
    assert (answer["data"], answer["negative_groups"]) == ([], 1)
