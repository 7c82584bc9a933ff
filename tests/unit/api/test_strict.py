"""Row 38: an address has one meaning, or it is refused."""

from __future__ import annotations

import asyncio
import re
from datetime import date, timedelta
from typing import Any

import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient

from api.strict import _DAY, plain_address

CITIES = "/api/v1/top-sales/by-city"
SALESMEN = "/api/v1/top-salesmen/by-country"
SUMMARY = "/api/v1/payments/summary"
GENERATIONS = "/api/v1/generations"
LINEAGE = "/api/v1/lineage"


def refused(client: TestClient, address: str, parameter: str) -> dict[str, Any]:
    answer = client.get(address)
    assert answer.status_code == 422, (address, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert parameter in {error["parameter"].split(".")[0] for error in body["errors"]}, body
    return body


@pytest.mark.parametrize(
    "query",
    [
        *("limit=1&limit=2", "limit=1&limit=1", "l%69mit=1&limit=2", "limit=1&country=DE&limit=2", "limit"),
        *(f"limit={number}" for number in ("1_000", "%EF%BC%91", "+1", "%2B1", "%201", "1%20", "1%0A")),
        *(f"limit={number}" for number in ("01", "1.0", "1e2", "0x10", "-1", "0", "1001", "", "9" * 20)),
        *("limit=%00", "limit=true", "limit=%D9%A1"),
    ],
)
def test_row_38_a_number_is_its_digits_once(bare: TestClient, query: str) -> None:
    refused(bare, f"{CITIES}?{query}", "limit")
    refused(bare, f"{GENERATIONS}?{query}", "limit")


@pytest.mark.parametrize(
    "value",
    [
        *("%FF", "%C3", "%C3%28", "%ED%A0%80", "%F8%88%80%80%80", "%C0%80", "%", "%2", "%zz", "D%E", "%00"),
        *("", "x" * 257, "%C3%96" * 129, "D%00E", "D%E2%80%8BE"),
    ],
)
def test_row_38_a_text_is_utf_8(bare: TestClient, value: str) -> None:
    refused(bare, f"{CITIES}?country={value}", "country")


def test_row_38_a_text_that_is_not_encoded_is_refused(bare: TestClient) -> None:
    """Starlette would read its bytes as Latin-1: another country, and an empty answer."""
    assert bare.get(f"{CITIES}?country=%C3%96").status_code == 503
    raw = Request({"type": "http", "raw_path": CITIES.encode(), "query_string": "country=Ö".encode()})
    with pytest.raises(RequestValidationError) as refusal:
        asyncio.run(plain_address(raw))
    (error,) = refusal.value.errors()
    assert (error["loc"], "percent-encoded" in error["msg"]) == (("query", "country"), True)


@pytest.mark.parametrize(
    "value",
    [
        *("20260131", "2026-1-1", "2026-01-1", "2026-01-31T00:00:00", "1769817600", "2026-02-30", "today"),
        *(
            "2026-W05-6",
            "%202026-01-31",
            "2026-01-31%0A",
            "%EF%BC%92026-01-31",
            "1899-12-31",
            "2200-01-01",
            "",
        ),
        *("2026-01-31Z", "2026/01/31", "31-01-2026", "+2026-01-31", "2100-02-29", "0000-01-01"),
    ],
)
def test_row_38_a_day_is_a_date(bare: TestClient, value: str) -> None:
    refused(bare, f"{CITIES}?date={value}", "date")
    refused(bare, f"{SUMMARY}?date={value}", "date")
    refused(bare, f"{SALESMEN}?at={value}", "at")


@pytest.mark.parametrize("currency", ["eur", "EURO", "EU", "%C3%89UR", "EUR%0A", "EUR%20", ""])
def test_row_38_a_currency_is_three_capital_letters(bare: TestClient, currency: str) -> None:
    refused(bare, f"{CITIES}?currency={currency}", "currency")


@pytest.mark.parametrize(
    "path",
    [
        *(CITIES, SALESMEN, SUMMARY, GENERATIONS, LINEAGE, "/api/v1/sales/s1"),
        *(f"{GENERATIONS}/top-sales-by-city/1/difference{suffix}" for suffix in ("", ".csv")),
    ],
)
def test_row_38_a_parameter_that_there_is_not_is_refused(bare: TestClient, path: str) -> None:
    refused(bare, f"{path}?dataset=x&made_up=1" if path == LINEAGE else f"{path}?made_up=1", "made_up")
    refused(bare, f"{path}?made_up", "made_up")


@pytest.mark.parametrize("number", ["01", "1_0", "+1", "0", "-1", "1.0", "%EF%BC%91", "2147483648", "%201"])
def test_row_38_a_generation_is_its_number(bare: TestClient, number: str) -> None:
    refused(bare, f"{GENERATIONS}/top-sales-by-city/{number}/difference", "generation")
    refused(bare, f"{GENERATIONS}/top-sales-by-city/{number}/difference.csv", "generation")


def test_row_38_a_sale_is_named_in_utf_8(bare: TestClient) -> None:
    refused(bare, "/api/v1/sales/%FF", "path")
    refused(bare, "/api/v1/sales/%zz", "path")
    assert bare.get("/api/v1/sales/%C3%96%2F1").status_code == 503


@pytest.mark.parametrize(
    "query",
    ["", "?", "?&", "?limit=1000&country=D%20E+x&date=2000-02-29&currency=EUR", "?country=%25&limit=1"],
)
def test_what_is_right_is_asked_of_the_database(bare: TestClient, query: str) -> None:
    assert bare.get(f"{CITIES}{query}").status_code == 503


def test_probes_may_ask_with_parameters_of_their_own(bare: TestClient) -> None:
    assert bare.get("/healthz?verbose&verbose=1").status_code == 200


def test_the_documented_pattern_is_every_day_of_1900_to_2199() -> None:
    pattern = re.compile(_DAY)
    day = date(1900, 1, 1)
    for _ in range(109_572):
        assert pattern.search(day.isoformat())
        day += timedelta(days=1)
    assert day == date(2199, 12, 31)
    assert not any(
        map(pattern.search, ("1900-02-29", "2100-02-29", "2023-02-29", "2026-04-31", "1899-12-31"))
    )
