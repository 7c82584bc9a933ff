"""A status reading returns the numbers of the real servers."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaException, TopicPartition
from sqlalchemy import Engine, create_engine, insert, text
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from contracts import tables
from contracts.datasets import PIPELINES
from contracts.schemas import load
from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import ENRICHED_SALES, PUBLIC, SALES_EVENTS, SOURCE_POSITIONS, GenerationTopics
from contracts.zones import ZoneRules
from kafka_client.clients import consumer, ensure_topics, transactional_producer
from kafka_client.registry import Registry
from observer import probes
from observer.platform_status import (
    Findings,
    future,
    negative_groups,
    overlap,
    read_status,
)
from stack.embedded import Embedded
from streaming.engine.progress import Progress, progress_key
from tests.support.generation_rows import AT, PIPELINE, activate
from tests.support.kafka import produce


@dataclass
class Written:
    kafka: KafkaSettings
    topics: GenerationTopics


@pytest.fixture
def written(stack: Embedded, engine: Engine) -> Written:
    """A generation that no other test has, active, its topics empty."""
    topics = GenerationTopics(PIPELINE, random.randrange(1_000, 1_000_000))
    ensure_topics(stack.kafka, (*PUBLIC, *topics.all))
    with engine.begin() as connection:
        activate(connection, topics)
    # A new broker makes its topic of committed offsets at the first request, and coordinates no group meanwhile;
    # that is not what is tested.
    reader = consumer(stack.kafka, topics.group_id("combine"), subscribed=False)
    asked = retry(
        retry=retry_if_exception_type(KafkaException),
        stop=stop_after_delay(60),
        wait=wait_fixed(0.1),
        reraise=True,
    )
    asked(reader.committed)([TopicPartition(SALES_EVENTS.name, 0)], timeout=60)
    reader.close()
    return Written(stack.kafka, topics)


def test_results_are_those_of_the_active_generation(written: Written, engine: Engine) -> None:
    standing = read_status(written.kafka, engine).pipelines[PIPELINE]
    assert standing.generation == written.topics.generation
    assert standing.promotion_number == 3
    assert standing.apply_number == 7
    assert standing.watermark == AT, "the least of the partitions"


def test_no_reading_waits_for_totals_of_which_there_may_be_very_many(
    written: Written, engine: Engine, results_db: ResultsDbSettings
) -> None:
    """A reader of a locked table waits for it; this one does not, and so counts none of its rows."""
    hasty = create_engine(
        results_db.results_db_url.get_secret_value(),
        connect_args={"options": "-c lock_timeout=2000"},
    )
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE city_totals, salesman_totals IN ACCESS EXCLUSIVE MODE"))
        assert read_status(written.kafka, hasty).pipelines[PIPELINE].generation == written.topics.generation
    hasty.dispose()


def test_ends_of_topics_are_summed_over_partitions(written: Written, engine: Engine) -> None:
    before = read_status(written.kafka, engine).topics[SALES_EVENTS.name]
    produce(written.kafka, SALES_EVENTS, [b"x"] * 5)
    assert read_status(written.kafka, engine).topics[SALES_EVENTS.name] == before + 5 + 1, (
        "and the commit's marker"
    )


def test_behind_is_the_distance_between_what_was_committed_and_the_end(
    written: Written, engine: Engine
) -> None:
    partials, group = written.topics.partials, written.topics.group_id("merge")
    produce(written.kafka, partials, [b"x"] * 9)
    produce(written.kafka, written.topics.state, [b"x"] * 3)
    reader = consumer(written.kafka, group, subscribed=False)
    reader.commit(offsets=[TopicPartition(partials.name, 0, 4)], asynchronous=False)
    reader.close()
    standing = read_status(written.kafka, engine).pipelines[PIPELINE]
    assert standing.behind("merge") == 9 + 1 - 4
    assert standing.behind("sink") == 3 + 1
    assert standing.behind("combine") == 0, "a group that never was has nothing"


def test_a_sources_newest_committed_position_counts(written: Written, engine: Engine) -> None:
    codec = Registry(written.kafka).codec(SOURCE_POSITIONS.subject, load(SOURCE_POSITIONS.schema))
    source = f"test-{random.random()}"

    def position(next_seq: int) -> bytes:
        detail = json.dumps({"lsn": "0/1"})
        record = {"source": source, "next_seq": next_seq, "frontier": AT, "detail": detail}
        return codec.encode(("electrored.SourcePosition", record))

    chunk = {"source": source, "number": 1, "upper_key": "k", "snapshot": "1:2:"}
    snapshot_range = codec.encode(("electrored.SnapshotRange", chunk))
    produce(written.kafka, SOURCE_POSITIONS, [position(5), position(8), snapshot_range])
    produce(written.kafka, SOURCE_POSITIONS, [position(99)], commit=False)
    found = read_status(written.kafka, engine).sources[source]
    assert (found.next_seq, found.frontier, found.detail) == (8, AT, '{"lsn": "0/1"}')


def test_row_21_what_was_dropped_as_a_duplicate_is_counted_by_log(written: Written, engine: Engine) -> None:
    """From the newest progress of each partition of each step; merge has none."""
    topic = written.topics.progress
    codec = Registry(written.kafka).codec(topic.subject, load(topic.schema))

    def progress(duplicates: int) -> bytes:
        found = Progress(next_offset=9, duplicates=duplicates)
        return codec.encode(found.to_record("x"))

    producer = transactional_producer(written.kafka, f"test-{random.random()}")
    producer.init_transactions(60)
    for step, log, partition, dropped in (
        ("combine", "sales-events", 0, 3),
        ("combine", "sales-events", 0, 5),
        ("combine", "sales-events", 1, 2),
        ("combine.payment-confirmations", "payment-confirmations", 0, 14),
        ("merge", written.topics.partials.name, 0, 0),
    ):
        producer.begin_transaction()
        producer.produce(topic.name, progress(dropped), progress_key(step, log, partition), partition=0)
        producer.commit_transaction(60)
    found = read_status(written.kafka, engine).pipelines[PIPELINE].duplicates
    assert found == {"sales-events": 7, "payment-confirmations": 14}
    assert read_status(written.kafka, engine, positions=False).pipelines[PIPELINE].duplicates == {}


def test_before_the_first_generation_there_is_no_pipeline(stack: Embedded, engine: Engine) -> None:
    ensure_topics(stack.kafka, PUBLIC)
    assert read_status(stack.kafka, engine).pipelines == {}


@dataclass
class Sales:
    """Joined sales, in a generation that becomes active with them."""

    engine: Engine
    generation: int

    def add(self, *sales: dict[str, Any]) -> None:
        names = ("country", "city", "salesman_id", "salesman_name", "product", "status")
        sale = {
            "generation": self.generation,
            "source": "csv",
            "currency": "EUR",
            "sales_count": 1,
            "quantity": 1,
            "amount": 5,
            "sold_at": AT,
            "payments": [],
            "ambiguous": False,
            "updated_at": AT,
            "apply_number": 7,
            **dict.fromkeys(names, "x"),
        }
        with self.engine.begin() as connection:
            activate(connection, GenerationTopics(ENRICHED_SALES.name, self.generation), ENRICHED_SALES.name)
            connection.execute(insert(tables.joined_sales), [sale | one for one in sales])


@pytest.fixture
def sales(engine: Engine) -> Sales:
    return Sales(engine, random.randrange(1_000, 1_000_000))


def test_sale_ids_of_several_sources_are_those_of_the_active_generation(engine: Engine, sales: Sales) -> None:
    assert overlap(engine) == Findings(0, ())
    sales.add(
        {"sale_id": "both", "ambiguous": True},
        {"sale_id": "both", "source": "postgres", "ambiguous": True},
        {"sale_id": "one"},
        {"sale_id": "before", "ambiguous": True, "generation": sales.generation + 1},
    )
    assert overlap(engine) == Findings(1, ("both",))


def test_groups_below_zero_are_those_of_the_active_generation(engine: Engine, sales: Sales) -> None:
    assert negative_groups(engine) == dict.fromkeys(PIPELINES, Findings())
    sales.add(
        {"sale_id": "b", "sales_count": -1},
        {"sale_id": "a", "sales_count": -1},
        {"sale_id": "c", "sales_count": 0},
        {"sale_id": "d"},
        {"sale_id": "e", "sales_count": -1, "generation": sales.generation + 1},
    )
    found = negative_groups(engine)
    shown = {s.labels["pipeline"]: s.value for s in probes.probe_totals(engine)}
    assert shown == {name: negative.count for name, negative in found.items()}
    assert found[ENRICHED_SALES.name] == Findings(2, ("csv a", "csv b"))
    assert {name for name, negative in found.items() if negative.count} == {ENRICHED_SALES.name}


def test_finding_groups_below_zero_costs_no_reading_of_the_others_and_no_update_its_hot_way(
    engine: Engine, sales: Sales
) -> None:
    sales.add(*({"sale_id": f"s{n}"} for n in range(2_000)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE joined_sales"))
        plan = connection.execute(
            text("EXPLAIN SELECT count(*) FROM joined_sales WHERE generation = 1 AND is_negative")
        ).scalars()
        assert "joined_sales_negative" in "".join(plan)
        connection.execute(text("UPDATE joined_sales SET sales_count = 2 WHERE sale_id = 's1'"))
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        updates = "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'joined_sales'"
        assert connection.execute(text(updates)).one() == (1, 1)


def test_row_29_sales_in_the_future_are_those_that_no_clock_explains(engine: Engine, sales: Sales) -> None:
    assert future(engine) == Findings(0, ())
    now = datetime.now(UTC)
    tomorrow = now + timedelta(days=1)
    sales.add(
        {"sale_id": "typo", "sold_at": datetime(2126, 1, 2, 3, 4, tzinfo=UTC)},
        {"sale_id": "ahead", "sold_at": now + timedelta(minutes=59)},
        {"sale_id": "tomorrow", "sold_at": tomorrow},
        {"sale_id": "taken back", "sold_at": tomorrow, "sales_count": 0},
        {"sale_id": "of another generation", "sold_at": tomorrow, "generation": 1},
        {"sale_id": "now", "sold_at": now},
    )
    found = future(engine)
    assert (found.count, found.first[0][:9], found.first[1]) == (
        2,
        "tomorrow ",
        "typo (2126-01-02 03:04 UTC)",
    )


def test_row_30_rules_are_outdated_where_this_machine_knows_others(written: Written, engine: Engine) -> None:
    for rules, is_outdated in (
        (None, False),
        (ZoneRules.of_machine("UTC"), False),
        (ZoneRules("UTC", (1, 739_000), (0, 3600)), True),
    ):
        with engine.begin() as connection:
            connection.execute(tables.generations.update().values(zone_rules=rules and rules.to_json()))
        assert read_status(written.kafka, engine).pipelines[PIPELINE].is_outdated == is_outdated
