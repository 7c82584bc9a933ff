"""Rules 4 and 5: reading back, and the overlay's fate when a transaction does not go through."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import cycle
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from contracts.topics import SALES_EVENTS
from kafka_client import clients as connect
from kafka_client.errors import Fatal
from observability.metrics import TRANSACTIONS
from streaming.engine import upkeep
from streaming.engine.loop import Loop
from streaming.engine.progress import Progress, progress_key
from streaming.engine.transactions import Transactions
from tests.support.pipeline_harness import START, PipelineHarness
from tests.support.waiting import wait_until

# The number of the last partition of the input.
LAST = SALES_EVENTS.partitions - 1

FRONTIER = START + timedelta(days=30)


class FaultyProducer:
    """A real producer whose broker, now and then, refuses or does not answer."""

    def __init__(self, inner: Producer, faults: Iterator[str]) -> None:
        self._inner = inner
        self._faults = faults
        self._fault = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def begin_transaction(self) -> None:
        self._fault = next(self._faults)
        self._inner.begin_transaction()

    def send_offsets_to_transaction(self, offsets: Any, metadata: bytes, timeout: float) -> None:
        if self._fault == "refused":
            # The member epoch stands behind the format's name: a member that was thrown out has an older one.
            metadata = (
                metadata[:7]
                + (int.from_bytes(metadata[7:11], "little") - 1).to_bytes(4, "little")
                + metadata[11:]
            )
        self._inner.send_offsets_to_transaction(offsets, metadata, timeout)

    def commit_transaction(self, timeout: float) -> None:
        if self._fault == "not sent":
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        self._inner.commit_transaction(timeout)
        if self._fault == "answer lost":
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def faulty(harness: PipelineHarness, loop: Loop, *faults: str) -> Loop:
    """The loop with a producer that has these faults, one transaction after the other, over and over."""
    loop.deps.transactions.close()
    left = cycle(faults)

    def make() -> Any:
        transactional_id = harness.generation.names.transactional_id(loop.step.name, 77)
        return FaultyProducer(connect.transactional_producer(harness.kafka, transactional_id), left)

    return Loop(replace(loop.deps, transactions=Transactions(make, loop.flow)))


def outcomes(loop: Loop, outcome: str) -> float:
    value: float = TRANSACTIONS.labels(loop.flow, outcome)._value.get()
    return value


def turn_until(loops: tuple[Loop, ...], condition: Callable[[], Any], seconds: float = 120) -> None:
    """Run the loops in this thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        for loop in loops:
            loop.run_once()


@pytest.mark.parametrize(
    ("faults", "outcome"),
    [
        (("", "refused"), "aborted"),
        (("", "answer lost"), "unknown"),
        (("", "not sent"), "unknown"),
        (("", "refused", "answer lost", "", "not sent"), "unknown"),
    ],
    ids=["aborted", "committed but not answered", "neither committed nor answered", "all of it"],
)
def test_rule_5_uncommitted_totals_are_an_overlay(
    harness: PipelineHarness, faults: tuple[str, ...], outcome: str
) -> None:
    combine, merge = (faulty(harness, loop, *faults) for loop in harness.loops())
    with harness.running(combine, merge):
        for _ in range(12):
            harness.feed(200, frontier=FRONTIER)
            time.sleep(0.1)
        harness.settled()
    assert outcomes(combine, outcome) > 0
    assert outcomes(merge, outcome) > 0


def test_rule_5_on_revoke_what_was_added_is_committed_first(harness: PipelineHarness) -> None:
    loops = harness.loops()
    with harness.running(*loops):
        fed = threading.Event()

        def load() -> None:
            for _ in range(80):
                harness.feed(200, frontier=FRONTIER)
            fed.set()

        feeding = threading.Thread(target=load)
        feeding.start()
        while not fed.is_set():
            # Each comes and goes cleanly: partitions move there and back while events flow.
            others = harness.loops(1, "other")
            with harness.running(*others):

                def are_ready(others: tuple[Loop, ...] = others) -> bool:
                    return all(loop.ready for loop in others)

                wait_until(are_ready, what="partitions of the other")
        feeding.join()
        harness.settled()
        assert outcomes(loops[0], "aborted") + outcomes(loops[0], "unknown") == 0


def test_rule_5_a_transaction_that_always_fails_ends_the_loop_with_the_reason(
    harness: PipelineHarness,
) -> None:
    combine, merge = harness.loops()
    merge.close()
    harness.feed(10)
    failing = faulty(harness, combine, "refused")
    with pytest.raises(Fatal, match="transactions in a row failed"):
        failing.run(threading.Event())


def test_rule_4_newly_assigned_partitions_rest_and_the_others_go_on(
    harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    combine, merge = harness.loops()
    restore, released = combine.deps.restorer.restore, threading.Event()

    def slow(partition: int) -> Progress:
        # The last one: the thread restores one after the other.
        if partition == LAST:
            assert released.wait(120)
        return restore(partition)

    monkeypatch.setattr(combine.deps.restorer, "restore", slow)
    harness.feed(800)
    combine.subscribe()
    turn_until((combine,), lambda: sum(combine.step.progress(p).events for p in combine.ready) > 500)
    assert combine.ready == frozenset(range(LAST))
    released.set()
    turn_until((combine,), lambda: len(combine.ready) == LAST + 1)
    turn_until((combine,), lambda: sum(combine.step.progress(p).events for p in range(LAST + 1)) == 800)
    combine.close()
    merge.close()


@pytest.mark.parametrize("commits", [True, False])
def test_rule_4_an_open_transaction_of_a_former_owner_is_waited_for(
    harness: PipelineHarness, commits: bool
) -> None:
    """Its progress counts if and only if it commits: what can be read before that is not the end."""
    combine, merge = harness.loops()
    former = connect.transactional_producer(harness.kafka, f"former-{harness.suffix}")
    former.init_transactions(60)
    _write_progress(harness, combine, former, 10)
    former.commit_transaction(60)
    _write_progress(harness, combine, former, 25)
    former.flush(60)
    restored = combine.deps.restorer.submit(0)
    # For a restore that does not wait to end: a slower machine only makes the test weaker, not flaky.
    time.sleep(1)
    assert not restored.done()
    if commits:
        former.commit_transaction(60)
    else:
        former.abort_transaction(60)
    assert restored.result(60).next_offset == (25 if commits else 10)
    former.close()
    combine.close()
    merge.close()


def test_rule_4_quiet_progress_is_found_behind_a_long_tail(harness: PipelineHarness) -> None:
    combine, merge = harness.loops()
    former = connect.transactional_producer(harness.kafka, f"former-{harness.suffix}")
    former.init_transactions(60)
    _write_progress(harness, combine, former, 10)
    former.commit_transaction(60)
    former.begin_transaction()
    topic = harness.generation.names.progress.name
    for _ in range(5_000):
        former.produce(topic, b"", b"merge/other/0", partition=0)
    former.commit_transaction(60)
    assert combine.deps.restorer.submit(0).result(60).next_offset == 10
    former.close()
    combine.close()
    merge.close()


def test_a_worker_that_died_between_commit_and_store_catches_up(
    harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    combine, merge = harness.loops()
    assert merge.deps.state is not None
    settle = merge.deps.state.store.settle
    settled: list[dict[int, int]] = []

    def dies_later(delivered: dict[int, int]) -> None:
        if len(settled) == 3:
            raise KeyboardInterrupt
        settled.append(delivered)
        settle(delivered)

    monkeypatch.setattr(merge.deps.state.store, "settle", dies_later)

    def load_until_it_dies() -> None:
        with harness.running(combine, merge):
            for _ in range(6):
                harness.feed(100)
                time.sleep(0.3)

    with pytest.raises(KeyboardInterrupt):
        load_until_it_dies()
    with harness.running(*harness.loops()):
        harness.feed(100)
        harness.settled()


def test_watermark_waits_for_an_open_transaction_below_the_end(harness: PipelineHarness) -> None:
    combine, merge = harness.loops()
    harness.feed(200)
    slow = connect.transactional_producer(harness.kafka, f"slow-{harness.suffix}")
    slow.init_transactions(60)
    slow.begin_transaction()
    held_back = harness._event()
    slow.produce(harness.source.name, harness.codec.encode(held_back), b"x", partition=3)
    slow.flush(60)
    harness.feed(200, frontier=FRONTIER)
    combine.subscribe()

    def reached() -> set[int]:
        return {p for p in combine.ready if combine.step.progress(p).watermarks.get(str(p)) == FRONTIER}

    turn_until((combine,), lambda: len(reached()) == LAST)
    assert reached() == set(range(LAST + 1)) - {3}
    slow.commit_transaction(60)
    turn_until((combine,), lambda: len(reached()) == LAST + 1)
    assert combine.step.progress(3).events >= 1
    slow.close()
    combine.close()
    merge.close()


def test_partials_are_deleted_only_below_merges_progress(
    harness: PipelineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "DELETE_SECONDS", 0.2)
    loops = harness.loops()
    partials = harness.generation.names.partials.name
    with harness.running(*loops):
        harness.feed(500)
        harness.settled()
        wait_until(lambda: not harness.read(partials), what="deletion")
        harness.feed(500)
        harness.settled()
    with harness.running(*harness.loops()):
        harness.feed(500)
        harness.settled()


def _write_progress(harness: PipelineHarness, loop: Loop, producer: Producer, next_offset: int) -> None:
    """Begin a transaction as a worker would that has come to this offset of partition 0, group included."""
    record = Progress(next_offset=next_offset).to_record(loop.deps.positions.input_topic_id)
    producer.begin_transaction()
    key = progress_key("combine", harness.source.name, 0)
    producer.produce(
        loop.deps.positions.progress_topic, loop.deps.progress_codec.encode(record), key, partition=0
    )
    # Without a member: an empty group takes offsets from any client.
    reader = connect.consumer(harness.kafka, loop.deps.positions.group_id, subscribed=False)
    producer.send_offsets_to_transaction(
        [TopicPartition(harness.source.name, 0, next_offset)], reader.consumer_group_metadata(), 60
    )
    reader.close()
