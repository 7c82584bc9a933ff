"""How old the oldest event of a commit is reaches the state topic, whatever the commits between."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

from confluent_kafka import Message

from kafka_client import latency_header
from streaming.engine.windows import to_micros
from streaming.sink.state_topic import Batch
from streaming.testing import Driver
from tests.support.drivers import city_driver
from tests.support.events import NOON, sale_event

SECOND = timedelta(seconds=1)


def told(driver: Driver) -> set[int | None]:
    return {latency_header.oldest([record]) for records in driver.state.records for record in records}


def recorded(driver: Driver, *moments: datetime) -> None:
    for seq, moment in enumerate(moments):
        driver.event(sale_event(seq, recorded_at=moment), 0)


def test_the_oldest_of_all_that_a_commit_took_is_told() -> None:
    driver = city_driver(state_partitions=1)
    recorded(driver, NOON + 3 * SECOND, NOON + SECOND, NOON + 2 * SECOND)
    driver.run()
    assert told(driver) == {to_micros(NOON + SECOND)}


def test_merge_tells_the_oldest_of_the_commits_that_it_adds() -> None:
    driver = city_driver(state_partitions=1)
    recorded(driver, NOON + 5 * SECOND, NOON + 2 * SECOND, NOON + 9 * SECOND)
    for _ in range(3):
        driver.combine(0, 1)
    driver.merge(0)
    assert told(driver) == {to_micros(NOON + 2 * SECOND)}


def test_a_commit_tells_nothing_of_the_one_before() -> None:
    driver = city_driver(state_partitions=1)
    recorded(driver, NOON + SECOND)
    driver.run()
    driver.event(sale_event(7, recorded_at=NOON + 8 * SECOND), 0)
    driver.run()
    assert told(driver) == {to_micros(NOON + SECOND), to_micros(NOON + 8 * SECOND)}


def test_a_sink_that_is_behind_takes_many_commits_at_once_and_tells_the_oldest_of_all() -> None:
    driver = city_driver(state_partitions=1)
    for seq, seconds in enumerate((5, 1, 8)):
        driver.event(sale_event(seq, recorded_at=NOON + seconds * SECOND), 0)
        driver.run()
    (records,) = driver.state.records
    assert latency_header.oldest(records[-1:]) == to_micros(NOON + 8 * SECOND)
    batch = Batch.of(cast(list[Message], records))
    assert batch.oldest_micros == to_micros(NOON + SECOND)
    batch.add(cast(list[Message], records[-1:]))
    assert batch.oldest_micros == to_micros(NOON + SECOND)


def test_rows_of_a_snapshot_bear_the_time_of_their_sale_and_tell_nothing() -> None:
    driver = city_driver(state_partitions=1)
    recorded(driver, NOON, NOON)
    driver.run()
    assert told(driver) == {None}


def test_row_22_an_event_recorded_in_a_year_that_does_not_exist_is_a_dead_letter() -> None:
    """Late, it would stand in a total that nobody who reads it could decode."""
    driver = city_driver(state_partitions=1)
    driver.event(sale_event(0, recorded_at=-(2**62)), 0)
    driver.event(sale_event(1), 0)
    driver.run()
    (total,) = driver.totals().values()
    assert total["sales_count"] == 1
    (letter,) = driver.dead_letters()
    assert letter["reason"] == (
        "does not decode as SaleEvent, schema id 1: a needed field is null or out of its range"
    )
