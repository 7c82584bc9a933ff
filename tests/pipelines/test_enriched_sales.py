"""The join is the plain join of the whole history, however the work was cut and whatever came first."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.topics import PAYMENT_CONFIRMATIONS
from streaming.pipelines.enriched_sales import V1
from streaming.testing import Driver
from tests.support.drivers import driver_of, work_through
from tests.support.events import confirmation, sale_event
from tests.support.histories import AMOUNTS, MOMENTS, NOON, ROWS, Source
from tests.support.join_oracle import oracle, sale_facts

SALES, PAYMENTS = 0, 1
# Few, so that sales and payments meet, in two sources too; "watermark" is what another record's key is.
SALE_IDS = ["watermark", "a|b", "a\\|b", "ß", "s-5"]


@st.composite
def sales(draw: st.DrawFn, most: int = 20) -> list[dict[str, Any]]:
    """Inserts, corrections and deletes of a few sales, by two sources that are independent of each other."""
    sources = [Source("postgres"), Source("csv")]
    events: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, most))):
        source = draw(st.sampled_from(sources))
        row = draw(ROWS) | {"sale_id": draw(st.sampled_from(SALE_IDS))}
        row["amount"] = draw(st.one_of(st.just(Decimal("10.0000")), AMOUNTS))
        old = source.live.pop(row["sale_id"], None)
        if old is not None:
            events.append(source.event(old, "REVERSAL", row["sold_at"]))
        if old is None or draw(st.booleans()):
            source.live[row["sale_id"]] = row
            events.append(source.event(row, "SALE", row["sold_at"]))
    return events


@st.composite
def payments(draw: st.DrawFn, most: int = 12) -> list[dict[str, Any]]:
    """Confirmations: some again, some given back later, some of another amount or currency, some of no sale."""
    found: list[dict[str, Any]] = []
    for seq in range(draw(st.integers(0, most))):
        is_again = bool(found) and draw(st.booleans())
        again = draw(st.sampled_from(found)) if is_again else None
        fresh = {
            "payment_id": f"p{draw(st.integers(0, 5))}",
            "sale_id": draw(st.sampled_from([*SALE_IDS, "of no sale"])),
            "amount": draw(st.sampled_from([Decimal("10.0000"), Decimal("4.0000"), Decimal("6.0000")])),
            "currency": draw(st.sampled_from(["EUR", "EUR", "USD"])),
            "confirmed_at": draw(MOMENTS),
            "status": "CONFIRMED",
        }
        if again is not None:
            change = draw(st.sampled_from(["repeated", "refunded", "same time"]))
            later = timedelta(days=1) if change == "refunded" else timedelta(0)
            status = again["status"] if change == "repeated" else "REFUNDED"
            fresh = again | {"confirmed_at": again["confirmed_at"] + later, "status": status}
        found.append(fresh | {"source": "soap", "seq": seq, "recorded_at": fresh["confirmed_at"]})
    return found


def shown(driver: Driver) -> dict[str, Any]:
    """The values of the public topic for all totals; the rows must agree."""
    answers = {}
    for total in driver.totals().values():
        rows = [row for row in V1.rows(total) if row["sales_count"] != 0]
        value = V1.public(total)
        if value is None:
            assert rows == []
            continue
        assert [(r["source"], r["status"], r["ambiguous"]) for r in rows] == [
            (s["source"], s["status"], value["ambiguous"]) for s in value["sales"]
        ]
        answers[total["sale_id"]] = (
            {s["source"]: (sale_facts(s), s["status"]) for s in value["sales"]},
            {p["payment_id"]: (p["amount"], p["currency"], p["status"]) for p in value["payments"]},
            value["ambiguous"],
        )
    return answers


@given(data=st.data(), events=sales(), confirmations=payments(), seed=st.integers())
def test_is_the_join_of_the_histories_however_the_work_was_cut(
    data: st.DataObject, events: list[dict[str, Any]], confirmations: list[dict[str, Any]], seed: int
) -> None:
    order = random.Random(seed)
    driver = driver_of(
        V1,
        input_partitions=data.draw(st.integers(1, 4)),
        state_partitions=data.draw(st.integers(1, 4)),
        workers=data.draw(st.integers(1, 3)),
    )
    rest = [(SALES, list(events)), (PAYMENTS, list(confirmations))]
    while any(records for _, records in rest):
        number, records = order.choice([each for each in rest if each[1]])
        driver.event(records.pop(0), number=number)
        if order.random() < 0.2:
            work_through(driver, order)
    work_through(driver, order)
    assert shown(driver) == oracle(events, confirmations)


@given(events=sales(), confirmations=payments(), seed=st.integers())
def test_what_is_delivered_again_counts_once(
    events: list[dict[str, Any]], confirmations: list[dict[str, Any]], seed: int
) -> None:
    order = random.Random(seed)
    driver = driver_of(V1, input_partitions=1)
    again = 0
    for number, records in ((SALES, events), (PAYMENTS, confirmations)):
        for position, record in enumerate(records):
            driver.event(record, number=number)
            for repeated in records[max(0, position - order.randint(0, 3)) : position + order.randint(0, 1)]:
                driver.event(repeated, number=number)
                again += 1
    work_through(driver, order)
    assert shown(driver) == oracle(events, confirmations)
    assert sum(driver.progress(0, number=number).duplicates for number in (SALES, PAYMENTS)) == again


@given(events=sales(), confirmations=payments(), seed=st.integers())
def test_totals_do_not_depend_on_the_order_of_the_work(
    events: list[dict[str, Any]], confirmations: list[dict[str, Any]], seed: int
) -> None:
    answers = []
    for order in (random.Random(seed), random.Random(seed + 1)):
        driver = driver_of(V1, workers=order.randint(1, 3))
        for number, records in ((SALES, events), (PAYMENTS, confirmations)):
            for record in records:
                driver.event(record, number=number)
        work_through(driver, order)
        answers.append(driver.totals())
    assert answers[0] == answers[1]


def sale(seq: int, **changes: Any) -> dict[str, Any]:
    return sale_event(seq, **{"sale_id": "s1"} | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "MAYBE"}, "status is neither CONFIRMED nor REFUNDED"),
        ({"payment_id": ""}, "payment_id is empty"),
        ({"payment_id": "p\0"}, "payment_id holds a NUL"),
        ({"sale_id": "s" * 1_001}, "sale_id is longer than 1000 bytes"),
        ({"currency": "eur"}, "currency is not three capital letters"),
        (
            {"confirmed_at": datetime(2200, 1, 1, tzinfo=UTC)},
            "confirmed_at is not between 1900-01-01 and 2200-01-01",
        ),
    ],
    ids=str,
)
def test_an_impossible_payment_is_a_dead_letter_and_the_rest_goes_on(
    changes: dict[str, Any], reason: str
) -> None:
    driver = driver_of(V1, sale(0), input_partitions=1)
    driver.event(confirmation(0, **changes), number=PAYMENTS)
    driver.event(confirmation(1), number=PAYMENTS)
    driver.run()
    (letter,) = driver.dead_letters()
    assert (letter["origin"], letter["partition"], letter["offset"]) == (PAYMENT_CONFIRMATIONS.name, 0, 0)
    assert letter["reason"] == reason
    assert shown(driver)["s1"][0]["postgres"][1] == "CONFIRMED"


def test_a_watermark_is_the_least_over_both_inputs() -> None:
    driver = driver_of(V1, input_partitions=2, state_partitions=2)
    for partition in range(2):
        driver.watermark(partition, NOON, number=SALES)
    driver.run()
    assert driver.watermarks() == {}, "no watermark of payments yet"
    for partition in range(2):
        driver.watermark(partition, NOON - timedelta(minutes=5), number=PAYMENTS)
    driver.run()
    assert driver.watermarks() == dict.fromkeys((0, 1), NOON - timedelta(minutes=5))
    driver.watermark(0, NOON + timedelta(days=1), number=PAYMENTS)
    driver.watermark(1, NOON + timedelta(days=1), number=PAYMENTS)
    driver.run()
    assert driver.watermarks() == dict.fromkeys((0, 1), NOON)


def test_nothing_is_late_without_windows() -> None:
    driver = driver_of(V1, sale(0, recorded_at=NOON + timedelta(days=400)))
    driver.event(confirmation(0, recorded_at=NOON + timedelta(days=400)), number=PAYMENTS)
    driver.run()
    assert driver.late_events() == []
    assert shown(driver)["s1"][0]["postgres"][1] == "CONFIRMED"


def test_a_text_that_is_only_shown_is_cut_and_never_refused() -> None:
    driver = driver_of(V1, sale(0, product="A\0" + "x" * 300, salesman_name="é" * 300))
    ((row,),) = (V1.rows(total) for total in driver.totals().values())
    assert row["product"] == "A\ufffd" + "x" * 198
    assert row["salesman_name"] == "é" * 200


def test_the_greatest_amount_is_exact() -> None:
    most = Decimal("99999999999999.9999")
    reversal = sale(1, operation="REVERSAL", amount=most, quantity=-1)
    driver = driver_of(V1, sale(0, amount=-most), reversal, sale(2, amount=most))
    driver.event(confirmation(0, amount=most), number=PAYMENTS)
    driver.run()
    assert shown(driver)["s1"][0]["postgres"][1] == "CONFIRMED"
    ((row,),) = (V1.rows(total) for total in driver.totals().values())
    assert row["amount"] == most
