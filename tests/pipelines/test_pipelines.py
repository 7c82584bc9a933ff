"""What a pipeline does with one event of each kind, with explicit times."""

from __future__ import annotations

import pickle
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from kafka_client.errors import Fatal
from streaming.engine.step import Output, Step
from streaming.pipelines import PIPELINES
from streaming.testing import Driver
from tests.support.drivers import CITY, GRACE, city_driver, driver_of
from tests.support.events import NOON, sale_event

SALESMAN = PIPELINES[("top-salesman-by-country", 1)]
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize("key", PIPELINES)
def test_a_pipeline_can_be_handed_to_another_process(key: tuple[str, int]) -> None:
    copy = pickle.loads(pickle.dumps(PIPELINES[key]))
    assert (copy.name, copy.version) == key
    assert [each.normal for each in copy.inputs] == [each.normal for each in PIPELINES[key].inputs]


def only(driver: Driver) -> dict[str, Any]:
    (total,) = driver.totals().values()
    return total


@pytest.mark.parametrize(
    ("sold_at", "start"),
    [(MIDNIGHT - timedelta(microseconds=1), MIDNIGHT - timedelta(days=1)), (MIDNIGHT, MIDNIGHT)],
)
def test_windows_are_half_open(sold_at: datetime, start: datetime) -> None:
    driver = city_driver(sale_event(0, sold_at=sold_at))
    assert only(driver)["window_start"] == start


@pytest.mark.parametrize(
    ("recorded_at", "late"), [(MIDNIGHT + GRACE - timedelta(microseconds=1), 0), (MIDNIGHT + GRACE, 1)]
)
def test_late_begins_at_window_end_plus_grace(recorded_at: datetime, late: int) -> None:
    driver = city_driver(sale_event(0, recorded_at=recorded_at))
    total = only(driver)
    assert total["late_count"] == len(driver.late_events()) == late
    assert total["total"] == Decimal("10.0000"), "a late fact is counted"
    assert total["restated_at"] == (recorded_at if late else None)


def test_currencies_are_never_mixed() -> None:
    driver = city_driver(sale_event(0), sale_event(1, currency="USD"))
    assert sorted(total["currency"] for total in driver.totals().values()) == ["EUR", "USD"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"operation": "REFUND"}, "operation is neither SALE nor REVERSAL"),
        ({"sold_at": datetime(1899, 12, 31, tzinfo=UTC)}, "sold_at is not between 1900-01-01 and 2200-01-01"),
        ({"sold_at": datetime(2200, 1, 1, tzinfo=UTC)}, "sold_at is not between 1900-01-01 and 2200-01-01"),
        ({"city": ""}, "city is empty"),
        ({"country": ""}, "country is empty"),
        ({"salesman_id": ""}, "salesman_id is empty"),
        ({"sale_id": ""}, "sale_id is empty"),
        ({"currency": "eur"}, "currency is not three capital letters"),
        ({"currency": "EUR\n"}, "currency is not three capital letters"),
        ({"city": "B" * 257}, "city is longer than 256 bytes"),
        ({"salesman_id": "ß" * 129}, "salesman_id is longer than 256 bytes"),
        ({"country": "D\0E"}, "country holds a NUL"),
        ({"sale_id": "s" * 1001}, "sale_id is longer than 1000 bytes"),
    ],
    ids=str,
)
@pytest.mark.parametrize("pipeline", [CITY, SALESMAN], ids=lambda pipeline: pipeline.name)
def test_an_impossible_value_is_a_dead_letter_in_every_pipeline(
    pipeline: Any, changes: dict[str, Any], reason: str
) -> None:
    driver = driver_of(pipeline, sale_event(0), sale_event(1, **changes), sale_event(2), input_partitions=1)
    (letter,) = driver.dead_letters()
    assert (letter["origin"], letter["partition"], letter["offset"]) == ("sales-events", 0, 2)
    assert letter["reason"] == reason
    assert driver.event_codec.decode(letter["value"])["seq"] == 1
    assert only(driver)["sales_count"] == 2
    assert (driver.progress(0).events, driver.progress(0).dead) == (3, 1)


def test_an_undecodable_event_is_a_dead_letter_and_the_rest_goes_on() -> None:
    driver = city_driver(input_partitions=1)
    driver.event(sale_event(0))
    driver.log.append(0, b"x", b"not avro")
    driver.log.append(0, b"y", None)
    driver.event(sale_event(1))
    driver.run()
    assert [(letter["offset"], letter["reason"]) for letter in driver.dead_letters()] == [
        (2, "no registry header"),
        (4, "no registry header"),
    ]
    assert only(driver)["sales_count"] == 2


def test_a_dead_letter_has_one_key_in_every_pipeline() -> None:
    keys = set()
    for pipeline in (CITY, SALESMAN):
        driver = driver_of(pipeline, input_partitions=1)
        driver.log.append(0, b"x", b"not avro")
        driver.run()
        keys |= {record.with_key for record in driver.dead.records[0]}
    assert keys == {b"sales-events/0/0"}


def test_an_invalid_event_that_comes_again_is_a_duplicate() -> None:
    driver = city_driver(*[sale_event(0, city="")] * 2, input_partitions=1)
    assert (driver.progress(0).dead, driver.progress(0).duplicates) == (1, 1)


def test_a_watermark_travels_behind_what_it_covers_and_is_the_minimum() -> None:
    driver = city_driver(input_partitions=2, state_partitions=2)
    driver.watermark(0, NOON)
    driver.run()
    assert driver.watermarks() == {}, "one input has no watermark yet"
    driver.watermark(1, NOON + timedelta(seconds=1))
    driver.run()
    assert driver.watermarks() == {0: NOON, 1: NOON}
    driver.watermark(0, NOON + timedelta(seconds=5))
    driver.run()
    assert driver.watermarks() == dict.fromkeys((0, 1), NOON + timedelta(seconds=1))


def test_a_watermark_never_goes_back() -> None:
    driver = city_driver(input_partitions=1, state_partitions=1)
    driver.watermark(0, NOON)
    driver.watermark(0, NOON - timedelta(seconds=1))
    driver.run()
    assert driver.watermarks() == {0: NOON}


def test_an_aborted_watermark_is_sent_again() -> None:
    driver = city_driver(input_partitions=1, state_partitions=1)
    driver.event(sale_event(0))
    driver.combine(0, commit=False)
    driver.watermark(0, NOON)
    driver.run()
    assert driver.watermarks() == {0: NOON}
    assert only(driver)["sales_count"] == 1


def test_a_sale_in_the_future_is_counted_and_reported() -> None:
    driver = city_driver(
        sale_event(0, sold_at=NOON + timedelta(microseconds=1)), sale_event(1), input_partitions=1
    )
    assert only(driver)["sales_count"] == 2
    assert driver.progress(0).future == 1


def test_a_shown_name_is_cut_and_never_refused() -> None:
    driver = driver_of(SALESMAN, sale_event(0, salesman_name="A\0" + "d" * 300))
    assert only(driver)["salesman_name"] == "A\ufffd" + "d" * 198


def test_an_amount_of_the_tables_precision_is_taken() -> None:
    driver = city_driver(sale_event(0, amount=Decimal("99999999999999.9999")))
    assert only(driver)["total"] == Decimal("99999999999999.9999")


def test_partials_of_many_groups_are_cut_into_records_that_kafka_takes() -> None:
    driver = city_driver(input_partitions=1, state_partitions=1)
    for seq in range(4_000):
        driver.event(sale_event(seq, city=f"{seq:0250}"))
    driver.watermark(0, NOON)
    driver.combine(0)
    driver.watermark(0, NOON + timedelta(seconds=1))
    sizes = [len(record.value() or b"") for record in driver.partials.records[0]]
    assert max(sizes) < 1_000_000 < sum(sizes)
    driver.run()
    assert len(driver.totals()) == 4_000
    assert driver.watermarks() == {0: NOON + timedelta(seconds=1)}


def test_the_dead_letter_of_a_huge_value_is_a_record_that_kafka_takes() -> None:
    driver = city_driver(input_partitions=1)
    driver.log.append(0, b"x", b"junk" * 250_000)
    driver.run()
    (record,) = driver.dead.records[0]
    assert len(record.value() or b"") < 1_000_000


def test_merge_refuses_a_record_that_comes_again() -> None:
    driver = city_driver(sale_event(0), input_partitions=1, state_partitions=1)
    with pytest.raises(Fatal, match="gave offset 0 again"):
        driver.merges[0].add(driver.partials.records[0])


def test_merge_refuses_what_combine_did_not_write() -> None:
    driver = city_driver()
    driver.partials.append(0, None, b"\x00\x00\x00\x00\x63stranger")
    with pytest.raises(Fatal, match="partials partition 0 offset 0 is not a partial of this generation"):
        driver.run()


def test_what_a_transaction_writes_is_counted_by_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partials, totals, late events and dead letters: what lineage reports of a worker."""
    counted, there = Counter[str](), Counter[str]()
    commit = Driver._commit

    def counting(driver: Driver, step: Step, output: Output) -> None:
        counted.update(output.written)
        there.update(record.topic for record in output.records)
        commit(driver, step, output)

    monkeypatch.setattr(Driver, "_commit", counting)
    driver = city_driver(
        sale_event(0), sale_event(1, recorded_at=MIDNIGHT + GRACE), sale_event(2, currency="?")
    )
    driver.watermark(0, NOON)
    driver.run()
    assert counted == there
    assert [len(driver.late_events()), len(driver.dead_letters())] == [1, 1]
