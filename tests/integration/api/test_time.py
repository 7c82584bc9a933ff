"""Kind 5, as readers see it: future sales, days that do not exist, and changed rules of a zone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.queries import CITY, ENRICHED, SALESMAN
from contracts.calendar import Calendar
from contracts.zones import ZoneRules
from tests.support.api import CITIES, DAY, SALESMEN, ApiResults, Clock, ask

SUMMARY = "/api/v1/payments/summary"
NEXT = DAY + timedelta(days=1)
FAR = datetime(2126, 11, 22, tzinfo=UTC)


def window(start: datetime, days: int = 1) -> dict[str, Any]:
    return {"window_start": start, "window_end": start + timedelta(days=days)}


def test_row_29_the_default_is_the_newest_window_that_has_begun(
    client: TestClient, filled: ApiResults, clock: Clock
) -> None:
    """Future sales count in their window, and every answer reports them."""
    month = window(DAY - timedelta(days=19), 30)
    filled.city("Berlin", "1")
    filled.city("Skewed", "2", **window(NEXT), sales_count=2)
    filled.city("Typo", "3", **window(FAR), country="AT", currency="CHF")
    filled.salesman("s1", "1", **month)
    filled.salesman("typo", "3", **window(month["window_end"] + timedelta(days=36_500), 30))
    filled.sale("s1")
    filled.sale("tonight", sold_at=NEXT - timedelta(microseconds=1))
    filled.sale("skewed", sold_at=NEXT)
    filled.sale("typo", sold_at=FAR)
    filled.sale("taken back", sold_at=FAR, sales_count=0)

    cities, men, summary = ask(client, CITIES), ask(client, SALESMEN), ask(client, SUMMARY)
    assert (cities["window"]["start"], [row["city"] for row in cities["data"]]) == (
        "2026-11-22T00:00:00Z",
        ["Berlin"],
    )
    assert (men["window"]["start"], [row["salesman_id"] for row in men["data"]]) == (
        "2026-11-03T00:00:00Z",
        ["s1"],
    )
    assert (summary["window"]["start"], summary["data"][0]["sales_count"]) == ("2026-11-22T00:00:00Z", 2)
    assert [found["freshness"]["future_sales"] for found in (cities, men, summary)] == [3, 1, 2]
    assert ask(client, CITIES, country="DE")["freshness"]["future_sales"] == 2
    assert ask(client, CITIES, currency="CHF")["freshness"]["future_sales"] == 1
    assert ask(client, CITIES, date="2126-11-22")["data"][0]["city"] == "Typo", "counted in its window"
    assert ask(client, SUMMARY, date="2126-11-22")["data"][0]["sales_count"] == 1

    tags = {path: client.get(path).headers["etag"] for path in (CITIES, SUMMARY)}
    clock.now = NEXT - timedelta(microseconds=1)
    for path, tag in tags.items():
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    clock.now = NEXT
    for path, tag in tags.items():
        assert client.get(path, headers={"If-None-Match": tag}).status_code == 200, "another day is today"
    assert [row["city"] for row in ask(client, CITIES)["data"]] == ["Skewed"]
    assert ask(client, CITIES)["freshness"]["future_sales"] == 1
    assert ask(client, SUMMARY)["data"][0]["sales_count"] == 1


def test_row_29_if_all_lies_in_the_future_there_is_no_window(client: TestClient, filled: ApiResults) -> None:
    filled.city("Typo", "3", **window(FAR))
    filled.sale("typo", sold_at=FAR)
    for path in (CITIES, SUMMARY):
        answer = ask(client, path)
        assert answer["window"] == {"start": None, "end": None, "time_zone": "UTC"}
        assert (answer["data"], answer["freshness"]["future_sales"]) == ([], 1)


@pytest.mark.parametrize(("hour", "shown"), [(10, "West"), (12, "East")])
def test_row_29_a_window_begins_by_the_clocks_of_its_zone(
    client: TestClient, empty: ApiResults, clock: Clock, hour: int, shown: str
) -> None:
    empty.generation(CITY, time_zone="Pacific/Auckland")
    empty.promote(CITY)
    midnight = DAY + timedelta(hours=11)
    empty.city("West", "1", **window(midnight - timedelta(days=1)))
    empty.city("East", "1", **window(midnight))
    clock.now = DAY + timedelta(hours=hour)
    assert [row["city"] for row in ask(client, CITIES)["data"]] == [shown]


@pytest.mark.parametrize(
    ("zone", "left_out", "after"),
    [
        ("Pacific/Apia", "2011-12-30", "2011-12-31"),
        ("Pacific/Fakaofo", "2011-12-30", "2011-12-31"),
        ("Pacific/Kwajalein", "1993-08-21", "1993-08-22"),
        ("Pacific/Kiritimati", "1994-12-31", "1995-01-01"),
    ],
)
def test_row_31_a_day_that_was_left_out_is_empty(
    client: TestClient, empty: ApiResults, zone: str, left_out: str, after: str
) -> None:
    for pipeline in (CITY, ENRICHED):
        empty.generation(pipeline, time_zone=zone)
        empty.promote(pipeline)
    day = Calendar("1-day", zone).window_of(datetime.fromisoformat(after).date())
    empty.city("After", "1", window_start=day.start, window_end=day.end, late_count=1)
    empty.sale("after", sold_at=day.start)
    for path in (CITIES, SUMMARY):
        nothing = ask(client, path, date=left_out)
        assert nothing["window"]["start"] == nothing["window"]["end"]
        assert nothing["data"] == []
        assert nothing["freshness"]["updated_at"] is None
        assert len(ask(client, path, date=after)["data"]) == 1
    assert ask(client, CITIES, date=left_out)["late"] == []


def test_row_32_a_grace_that_is_promoted_already_is_answered(client: TestClient, empty: ApiResults) -> None:
    empty.generation(CITY, grace=3e11)
    empty.promote(CITY)
    empty.city("Berlin", "1")
    empty.watermarks(CITY, FAR, FAR)
    answer = ask(client, CITIES)
    assert (answer["data"][0]["city"], answer["freshness"]["is_final"]) == ("Berlin", False)


def test_row_30_a_day_is_by_the_rules_that_the_generation_was_made_with(
    client: TestClient, empty: ApiResults
) -> None:
    """Here of a zone that gave up summer time, which this machine's zone files lack."""
    rules: dict[str, Any] = json.loads(ZoneRules.of_machine("Europe/Berlin").to_json())
    rules["days"], rules["offsets"] = rules["days"][:1], [3600]
    for pipeline, calendar in ((CITY, "1-day"), (SALESMAN, "calendar-month"), (ENRICHED, "1-day")):
        empty.generation(pipeline, 1, calendar, "Europe/Berlin", json.dumps(rules))
        empty.promote(pipeline)
    empty.city(
        "Berlin",
        "1",
        window_start=datetime(2026, 6, 30, 23, tzinfo=UTC),
        window_end=datetime(2026, 7, 1, 23, tzinfo=UTC),
    )
    answer = ask(client, CITIES, date="2026-07-01")
    assert (answer["window"]["start"], len(answer["data"])) == ("2026-06-30T23:00:00Z", 1)
    assert ask(client, SALESMEN, at="2026-07-15")["window"]["start"] == "2026-06-30T23:00:00Z"
    assert ask(client, SUMMARY, date="2026-07-01")["window"]["end"] == "2026-07-01T23:00:00Z"
