"""The cache of the files' rows: how it is caught up, and how long it waits for its database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest
from confluent_kafka import Producer
from sqlalchemy import make_url

from kafka_client import clients
from kafka_client.errors import Retriable
from sources.csv import sale_index
from sources.csv.own_events import Events, Log
from sources.csv.sale_index import SaleIndex
from tests.support.csv_desk import Desk, row
from tests.support.kafka import committed_values


def test_a_cache_that_ends_where_the_ledger_says_reads_no_log(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does a new one before the first event: the log may be long, of other sources' events."""
    events, begun = Log.events, []

    def counted(self: Log, offsets: dict[int, int]) -> Iterator[Events]:
        begun.append(offsets)
        return events(self, offsets)

    monkeypatch.setattr(Log, "events", counted)
    for number in range(2):
        desk.put(f"sales_{number}.csv", [row(number)])
        desk.take()
    assert begun == []
    desk.run("truncate csv_sales, csv_cache")
    desk.take()
    assert begun == [{}]
    assert desk.is_sound()


def test_a_database_that_is_cut_off_or_locked_is_not_waited_for_for_ever(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sale_index, "STATEMENT_SECONDS", 1)
    url = make_url(desk.results.results_db_url.get_secret_value()).set(drivername="postgresql")
    other = psycopg2.connect(url.render_as_string(hide_password=False))
    cache = SaleIndex(desk.results)
    try:
        with other.cursor() as cursor:
            cursor.execute("LOCK TABLE csv_sales IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Retriable, match="statement timeout"):
            cache.made_by(1, 2, 1)
        other.rollback()
        assert cache.made_by(1, 2, 1).is_empty()
        parameters = cache._connection.get_dsn_parameters()
        assert {"keepalives_idle", "keepalives_count", "tcp_user_timeout"} <= set(parameters)
    finally:
        cache.close()
        other.close()


def test_row_21_without_its_position_the_source_goes_on_above_the_log(desk: Desk) -> None:
    """The cache is read back from the log: what comes again is a duplicate, and no seq is given twice."""
    desk.put("sales_1.csv", [row(number) for number in range(1, 6)])
    desk.take()
    producer = Producer(clients.client_config(desk.stack.kafka))
    producer.produce(desk.topics.positions.name, None, key=b"csv")
    assert producer.flush(30) == 0
    desk.put("sales_2.csv", [row(number) for number in range(3, 9)])
    done = desk.take()
    assert (done.counts.accepted, done.counts.duplicates) == (3, 3)
    assert desk.is_sound()
    # Without the cache and the files' records, too: a file that comes again is not recognized, its rows are.
    for key in {key for key, _ in committed_values(desk.stack.kafka, desk.topics.positions)}:
        producer.produce(desk.topics.positions.name, None, key=key)
    assert producer.flush(30) == 0
    desk.run("truncate csv_sales, csv_cache")
    desk.put("sales_1.csv", [row(number) for number in range(1, 6)])
    desk.put("sales_3.csv", [row(number) for number in range(8, 11)])
    done = desk.take()
    assert (done.counts.accepted, done.counts.duplicates) == (2, 6)
    assert desk.is_sound()
    assert desk.positions()[-1]["next_seq"] == 11
