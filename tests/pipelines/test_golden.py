"""A version of a pipeline never changes in place: its answer to one fixed log, and its schemas, are pinned here.

If this fails, make a new version; a live generation is pinned to the old one and its state was written by it.
"""

from __future__ import annotations

import hashlib
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from streaming.pipelines import PIPELINES
from streaming.testing import Driver, canonical
from tests.support.drivers import driver_of
from tests.support.events import confirmation, sale_event
from tests.support.histories import CITIES, Source
from tests.support.interpreters import COLUMNS, ROWS, most_rows

GOLDEN = {
    ("top-sales-by-city", 1): ("111f18cfab401cd9", "0cbe1f476af1c5fc", "5765a89dd5a70565"),
    ("top-salesman-by-country", 1): ("e0c243538ab27b3f", "8cc5809759cf4912", "7bac79e273b83efa"),
    ("enriched-sales", 1): ("4258c604863cc134", "d3fff302c8272901", "089f13a1e2996d3b"),
    ("top-sales-by-city", 2): ("bb5a1b3444de7e7c", "0cbe1f476af1c5fc", "87a8b27b7f873f8e"),
    ("top-salesman-by-country", 2): ("630e38c962810420", "8cc5809759cf4912", "c287c22e6ee5473f"),
    ("enriched-sales", 2): ("f9ee03a998ca22d6", "d3fff302c8272901", "0c7de6f17ec01943"),
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fixed_log(driver: Driver) -> None:
    """500 changes, late ones, poison and repeats among them; the same on every machine."""
    choose = random.Random(7)
    source = Source()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(500):
        sold_at = start + timedelta(seconds=choose.randrange(90 * 86_400))
        country, city = choose.choice(CITIES)
        row = {
            "sale_id": f"sale-{number}", "sold_at": sold_at,
            "country": country, "city": city if number % 50 else "",
            "salesman_id": f"s{choose.randrange(9)}", "salesman_name": choose.choice(["Ada", "Bo"]),
            "product": "tv", "quantity": 1, "amount": Decimal(choose.randrange(-(10**9), 10**12)).scaleb(-4),
            "currency": choose.choice(["EUR", "USD"]),
        }  # fmt: skip
        recorded_at = sold_at + timedelta(hours=choose.choice([0, 0, 0, 30]))
        events = [source.event(row, "SALE", recorded_at)]
        if number % 7 == 0:
            events.append(source.event(row, "REVERSAL", recorded_at))
        for event in events:
            driver.event(event)
        if number % 11 == 0:
            driver.event(events[0])
        if number % 97 == 0:
            driver.log.append(number % 4, b"poison", b"\x00\x00\x00\x00\x01poison")
        if len(driver.logs) > 1 and number % 3:
            # Of its own numbers, so that what was chosen above stays what it was.
            driver.event(payment(number, row, recorded_at), number=1)


def payment(number: int, row: dict[str, Any], recorded_at: datetime) -> dict[str, Any]:
    """Most are right, some come twice, some differ, some are refunds."""
    return confirmation(
        number,
        payment_id=f"p{number - number % 5 // 4}",
        sale_id=row["sale_id"],
        amount=row["amount"] + (1 if number % 13 == 0 else 0),
        currency=row["currency"],
        status="REFUNDED" if number % 11 == 0 else "CONFIRMED",
        confirmed_at=row["sold_at"] + timedelta(minutes=number),
        recorded_at=recorded_at + timedelta(hours=1),
    )


def odd_texts(driver: Driver) -> None:
    """What versions since the second read as one, or refuse."""
    at = datetime(2026, 2, 1, tzinfo=UTC)
    odd = ["Köln", "Ko\u0308ln ", "K\u200böln", "\xa0Köln", "K\töln", "\u3164", "می\u200cخ"]
    for number, text in enumerate(odd):
        texts = dict.fromkeys(("city", "salesman_id", "salesman_name", "product"), text)
        facts = {"source": "csv", "country": "DE ", "sold_at": at, "recorded_at": at}
        driver.event(
            sale_event(number, sale_id=f"odd-{text}", amount=Decimal(number).scaleb(-4), **facts, **texts)
        )


@pytest.mark.parametrize("most", [ROWS, COLUMNS], ids=["rows", "columns"])
@pytest.mark.parametrize("version", list(GOLDEN), ids=str)
def test_a_version_answers_as_it_always_did(version: tuple[str, int], most: int) -> None:
    pipeline = PIPELINES[version]
    driver = driver_of(pipeline)
    fixed_log(driver)
    if pipeline.version > 1:
        odd_texts(driver)
    with most_rows(most):
        driver.run()
    placed = sorted(
        f"{(record.with_key or b'').decode()}@{record.at_partition}"
        for records in driver.state.records
        for record in records
    )
    found = (
        digest(canonical(driver.totals())),
        digest(json.dumps([pipeline.partial_schema(), pipeline.state_schema()])),
        digest(json.dumps(placed)),
    )
    assert found == GOLDEN[version], f"{version}: make a new version instead of changing this one"


def test_every_version_is_pinned() -> None:
    assert set(GOLDEN) == set(PIPELINES)
