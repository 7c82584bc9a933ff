"""The age of the oldest event of a commit reaches the state topic, whatever the commits between."""

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


def at(seconds: int) -> datetime:
    return NOON + timedelta(seconds=seconds)


def oldest(driver: Driver) -> set[int | None]:
    """In the headers of the state topic."""
    return {latency_header.oldest([record]) for records in driver.state.records for record in records}


def recorded(*seconds: int, first_seq: int = 0, driver: Driver | None = None) -> Driver:
    """Events of one partition, recorded so long after noon."""
    driver = driver or city_driver(state_partitions=1)
    for seq, second in enumerate(seconds, first_seq):
        driver.event(sale_event(seq, recorded_at=at(second)), 0)
    return driver


def test_a_commit_carries_the_oldest_of_all_that_it_took() -> None:
    driver = recorded(3, 1, 2)
    driver.run()
    assert oldest(driver) == {to_micros(at(1))}


def test_merge_carries_the_oldest_of_the_commits_that_it_adds() -> None:
    driver = recorded(5, 2, 9)
    for _ in range(3):
        driver.combine(0, 1)
    driver.merge(0)
    assert oldest(driver) == {to_micros(at(2))}


def test_a_commit_carries_nothing_of_the_one_before() -> None:
    driver = recorded(1)
    driver.run()
    recorded(8, first_seq=7, driver=driver).run()
    assert oldest(driver) == {to_micros(at(1)), to_micros(at(8))}


def test_a_sink_that_is_behind_takes_many_commits_at_once_and_reports_the_oldest_of_all() -> None:
    driver = city_driver(state_partitions=1)
    for seq, second in enumerate((5, 1, 8)):
        recorded(second, first_seq=seq, driver=driver).run()
    (records,) = driver.state.records
    assert latency_header.oldest(records[-1:]) == to_micros(at(8))
    batch = Batch.of(cast(list[Message], records))
    assert batch.oldest_micros == to_micros(at(1))
    batch.add(cast(list[Message], records[-1:]))
    assert batch.oldest_micros == to_micros(at(1))


def test_rows_of_a_snapshot_bear_the_time_of_their_sale_and_have_no_age() -> None:
    driver = recorded(0, 0)
    driver.run()
    assert oldest(driver) == {None}


def test_row_22_an_event_recorded_in_a_year_that_does_not_exist_is_a_dead_letter() -> None:
    """Late, it would stand in a total that no reader could decode."""
    driver = city_driver(sale_event(0, recorded_at=-(2**62)), sale_event(1), state_partitions=1)
    (total,) = driver.totals().values()
    assert total["sales_count"] == 1
    (letter,) = driver.dead_letters()
    assert letter["reason"] == (
        "does not decode as SaleEvent, schema id 1: a needed field is null or out of its range"
    )
