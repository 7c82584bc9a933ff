"""Exactly once, rule 3: the public topic is the current truth of the active generation, by one fenced publisher."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from contracts import datasets
from contracts.settings import ResultsDbSettings
from kafka_client.clients import admin, committed_offsets, consumer
from kafka_client.errors import Fatal
from kafka_client.offsets import ends
from kafka_client.registry import Registry
from observability.waits import Cancelled
from stack.embedded import Embedded
from streaming.engine.transactions import Transactions
from streaming.sink.publisher import Publisher
from tests.support.sink import (
    DAY,
    TIMEOUT_SECONDS,
    GenerationFixture,
    Make,
    Public,
    RecordingEmitter,
    publishing,
)
from tests.support.threads import Background
from tests.support.waiting import wait_until

Promote = Callable[[int], None]


def test_outsiders_see_totals_with_their_schema_and_no_hidden_group(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, promote: Promote, public: Public
) -> None:
    made = make()
    made.write([made.total("Berlin", "1.5", 2, late=1), made.total("Hidden", "0", 0)], watermark=DAY)
    promote(1)
    with publishing(stack.kafka, results_db) as died:
        public.until({"Berlin": "1.5000"})
        made.write([made.total("Ulm", "3"), made.total("Berlin", "2.5", 3)])
        public.until({"Berlin": "2.5000", "Ulm": "3.0000"})
        made.write([made.total("Ulm", "0", 0)])
        public.until({"Berlin": "2.5000"})
    assert died == []
    assert public.records[0] == (
        "2026-11-22T00:00:00Z|DE|Berlin|EUR",
        {
            "window_start": DAY,
            "window_end": DAY + timedelta(days=1),
            "country": "DE",
            "city": "Berlin",
            "currency": "EUR",
            "total": Decimal("1.5000"),
            "sales_count": 2,
            "late_count": 1,
            "late_amount": Decimal("1.0000"),
            "restated_at": DAY + timedelta(days=2),
        },
    )


def test_what_a_run_says_is_what_it_published_and_from_where_it_would_go_on(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, promote: Promote, public: Public
) -> None:
    made, heard = make(), RecordingEmitter()
    made.write([made.total("Berlin", "1"), made.total("Bonn", "2")], watermark=DAY)
    promote(1)
    with publishing(stack.kafka, results_db, heard) as died:
        public.until({"Berlin": "1.0000", "Bonn": "2.0000"})
        made.write([made.total("Berlin", "3")], watermark=DAY + timedelta(seconds=1))
        public.until({"Berlin": "3.0000", "Bonn": "2.0000"})
    assert died == []
    said = heard.of(f"{made.followed.pipeline.name}.publisher")
    assert said.watermark == DAY + timedelta(seconds=1)
    # What it compared at its start counts as written; what it read since is one total, and a watermark a partition.
    assert said.rows == {datasets.topic(made.followed.pipeline.output): 3}
    assert said.counts == {"publisher": {"records": 1 + made.followed.partitions}}
    assert said.checkpoints["publisher"].keys() == set(range(made.followed.partitions))
    reader = consumer(stack.kafka, f"{made.followed.pipeline.name}.publisher", subscribed=False)
    committed = committed_offsets(reader, made.topic, range(made.followed.partitions))
    reader.close()
    assert said.checkpoints == {"publisher": committed}


def test_a_restart_goes_on_where_it_was_and_says_nothing_twice(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, promote: Promote, public: Public
) -> None:
    made = make()
    promote(1)
    for n in range(1, 4):
        made.write([made.total("Berlin", str(n))])
        with publishing(stack.kafka, results_db) as died:
            public.until({"Berlin": f"{n}.0000"})
        assert died == []
    assert [str(value["total"]) for _, value in public.records] == ["1.0000", "2.0000", "3.0000"]


def test_after_a_promotion_the_topic_is_what_the_new_generation_says_and_back_after_a_rollback(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, promote: Promote, public: Public
) -> None:
    one, two = make(1), make(2, state="candidate")
    promote(1)
    one.write([one.total("Same", "1"), one.total("Changed", "1"), one.total("Gone", "1")])
    two.write([two.total("Same", "1"), two.total("Changed", "2"), two.total("New", "2")])
    two.write([two.total("Hidden", "0", 0)])
    before = {"Same": "1.0000", "Changed": "1.0000", "Gone": "1.0000"}
    after = {"Same": "1.0000", "Changed": "2.0000", "New": "2.0000"}
    with publishing(stack.kafka, results_db) as died:
        public.until(before)
        promote(2)
        public.until(after)
        two.write([two.total("New", "3")])
        public.until(after | {"New": "3.0000"})
        one.write([one.total("Gone", "7")])
        promote(1)
        public.until(before | {"Gone": "7.0000"})
    assert died == []
    assert sum("|Same|" in key for key, _ in public.records) == 1, "what did not change is not said again"


def test_a_promotion_while_nobody_publishes_is_caught_up(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, promote: Promote, public: Public
) -> None:
    one, two = make(1), make(2, state="candidate")
    promote(1)
    one.write([one.total("Old", "1")])
    two.write([two.total("New", "2")])
    with publishing(stack.kafka, results_db) as died:
        public.until({"Old": "1.0000"}, died)
    assert died == []
    promote(2)
    with publishing(stack.kafka, results_db) as died:
        public.until({"New": "2.0000"}, died)
    assert died == []


def test_killed_while_comparing_it_compares_again_and_writes_only_what_is_missing(
    stack: Embedded,
    results_db: ResultsDbSettings,
    make: Make,
    promote: Promote,
    public: Public,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streaming.sink.publisher.TRANSACTION_RECORDS", 3)
    made = make()
    made.write([made.total(f"c{n}", "1") for n in range(10)])
    promote(1)
    real, commits = Transactions.commit, 0

    class Killed(Exception):
        pass

    def dies(self: Transactions, *args: Any, **more: Any) -> Any:
        nonlocal commits
        commits += 1
        if commits == 3:
            raise Killed
        return real(self, *args, **more)

    monkeypatch.setattr(Transactions, "commit", dies)
    with publishing(stack.kafka, results_db) as died:
        wait_until(lambda: died, what="end of the publisher")
    assert isinstance(died[0], Killed)
    with publishing(stack.kafka, results_db) as died:
        public.until({f"c{n}": "1.0000" for n in range(10)})
    assert died == []
    assert len(public.records) == 10, "nothing was said twice"


def test_a_second_publisher_fences_the_first(
    stack: Embedded, make: Make, promote: Promote, public: Public
) -> None:
    made = make()
    made.write([made.total("Berlin", "1")])
    registry = Registry(stack.kafka)
    stop = threading.Event()
    first, second = (
        Background(lambda: Publisher(stack.kafka, registry, made.followed).run(stop)) for _ in range(2)
    )
    first.start()
    public.until({"Berlin": "1.0000"})
    second.start()
    deadline = time.monotonic() + TIMEOUT_SECONDS
    n = 1
    while first.is_alive() and second.is_alive():
        assert time.monotonic() < deadline
        n += 1
        made.write([made.total("Berlin", str(n))])
        public.until({"Berlin": f"{n}.0000"})
    stop.set()
    with pytest.raises(Fatal, match="fenced"):
        first.join()
    with suppress(Cancelled):
        second.join()
    assert [str(value["total"]) for _, value in public.records] == [f"{i}.0000" for i in range(1, n + 1)]


def test_a_recreated_state_topic_stops_the_publisher(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, promote: Promote
) -> None:
    made = make()
    promote(1)
    made.recreate_topic(stack.kafka)
    with publishing(stack.kafka, results_db) as died:
        wait_until(lambda: died, what="end of the publisher")
    assert "was re-created" in str(died[0])


def test_positions_are_the_end_of_what_was_published(
    stack: Embedded, results_db: ResultsDbSettings, make: Make, promote: Promote, public: Public
) -> None:
    """The committed offsets reach what outsiders can read."""
    made = make()
    made.write([made.total("Berlin", "1"), made.total("Ulm", "1"), made.total("Bonn", "1")])
    promote(1)
    with publishing(stack.kafka, results_db):
        public.until({"Berlin": "1.0000", "Ulm": "1.0000", "Bonn": "1.0000"})
        wait_until(
            lambda: _committed(stack, made) == ends(admin(stack.kafka), made.topic, range(2)),
            what="committed end",
        )


def _committed(stack: Embedded, made: GenerationFixture) -> dict[int, int]:
    reader = consumer(stack.kafka, f"{made.followed.pipeline.name}.publisher", subscribed=False)
    found = reader.committed([TopicPartition(made.topic, p) for p in range(2)], 60)
    reader.close()
    return {place.partition: place.offset for place in found}
