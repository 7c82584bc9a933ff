"""What a worker waits for is reported: row 27's foreign transaction, partitions that others have, a hanging loop."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from kafka_client import clients as connect
from kafka_client.open_producers import open_producers
from observability.waits import WAITS, On
from streaming.engine import opened, upkeep
from streaming.sink.state_topic import Reader
from tests.support.pipeline_harness import START, PipelineHarness
from tests.support.waiting import wait_until


def details(on: On) -> list[str]:
    return [wait.detail for wait in WAITS.current() if wait.on == on]


def foreign(harness: PipelineHarness, topic: str, partition: int) -> Producer:
    """A foreign producer, with a transaction open on that partition."""
    config = connect.client_config(harness.kafka) | {
        "transactional.id": f"foreign-{uuid4().hex}",
        "transaction.timeout.ms": 600_000,
    }
    producer = Producer(config)
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, b"foreign", b"key", partition)
    assert producer.flush(60) == 0
    return producer


def test_row_27_a_foreign_transaction_is_named_while_it_is_open(
    harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Topic, partition, producer, since when, and what ends it: of the log, and of the sources' positions."""
    monkeypatch.setattr(opened, "LOOK_SECONDS", 0.5)
    harness.feed(100, frontier=START)
    with harness.running(*harness.loops()):
        harness.settled()
        assert details("transaction") == []
        open_one = foreign(harness, harness.source.name, 1)
        producers = open_producers(harness.kafka, harness.source.name, 1)
        assert producers is not None
        (producer,) = producers
        harness.feed(100)
        (said,) = wait_until(lambda: details("transaction"), what="wait")
        assert (
            f"topic {harness.source.name} partition 1: a transaction of producer id {producer.id} is open since 20"
            in said
        )
        assert f"offset {producer.start_offset} counts when it ends" in said
        assert (
            f"abort --topic {harness.source.name} --partition 1 --start-offset {producer.start_offset}"
            in said
        )
        open_one.abort_transaction(60)
        wait_until(lambda: not details("transaction"), what="end of the wait")
        harness.settled()
        open_one = foreign(harness, harness.positions.name, 0)
        (said,) = wait_until(lambda: details("transaction"), what="wait")
        assert f"topic {harness.positions.name} partition 0: a transaction of producer id " in said
        open_one.abort_transaction(60)
        wait_until(lambda: not details("transaction"), what="end of the wait")
    assert WAITS.current() == []


def test_row_27_neighbour_a_follower_of_a_state_topic_names_it_too(
    harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the sink and the publisher read one."""
    monkeypatch.setattr(opened, "LOOK_SECONDS", 0.2)
    state = harness.generation.names.state.name
    open_one = foreign(harness, state, 0)
    with Reader(harness.kafka, state, harness.generation.names.group_id("sink")) as reader:
        reader.assign({0: 0, 1: 0})
        wait_until(lambda: reader.take(0.1) or details("transaction"), what="wait")
        assert f"topic {state} partition 0: a transaction of producer id " in details("transaction")[0]
        open_one.abort_transaction(60)
        wait_until(lambda: reader.take(0.1) or not details("transaction"), what="end of the wait")
    assert WAITS.current() == []


def test_a_worker_without_partitions_says_who_has_them(
    harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ASSIGNED_SECONDS", 1.0)
    narrow = PipelineHarness(harness.kafka, harness.results_url, harness.folder / "narrow", partitions=1)
    try:
        with narrow.running(*narrow.loops()):
            narrow.feed(10)
            narrow.settled()
            assert details("partitions") == []
            second = narrow.loops(1, "second")
            with narrow.running(second[0]):
                (said,) = wait_until(lambda: details("partitions"), what="wait")
                assert f"no partition of {narrow.source.name}" in said
            second[1].close()
            assert details("partitions") == []
    finally:
        narrow.close()


def test_a_loop_that_hangs_stands_still(harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observability.waits.TURN_SECONDS", 2.0)
    combine, merge = harness.loops()
    merge.close()
    hangs, goes_on = threading.Event(), threading.Event()
    add = combine.step.add

    def hang(records: object) -> int:
        hangs.set()
        assert goes_on.wait(120)
        return add(records)  # type: ignore[arg-type]

    monkeypatch.setattr(combine.step, "add", hang)
    with harness.running(combine):
        harness.feed(10)
        assert hangs.wait(60)
        (said,) = wait_until(lambda: details("loop"), what="wait")
        assert f"no turn of {harness.generation}.combine" in said
        goes_on.set()
        wait_until(lambda: not details("loop"), what="turns")
    assert WAITS.current() == []
