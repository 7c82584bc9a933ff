"""What a barrier promises: rows of exactly the events below its targets, also while workers come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from sqlalchemy import Connection, create_engine, insert, select, text

from contracts.tables import barrier_reports, barriers, city_totals, generations
from kafka_client import clients as connect
from stack.embedded import Embedded
from streaming.engine.merge import Merge
from streaming.engine.step import Message
from streaming.generations import barriers as participants
from streaming.generations import supervisor
from streaming.generations.barriers import Barriers
from streaming.replay.barrier import Committed, ReachedBarrier, hold_at_barrier
from streaming.replay.errors import RequestRefused
from tests.support.live_harness import LiveHarness
from tests.support.pipeline_harness import PipelineHarness, Totals, grouped
from tests.support.waiting import wait_until


def events_below(harness: PipelineHarness, targets: dict[int, int]) -> list[dict[str, Any]]:
    """Of the log itself, whatever was fed."""
    topic = harness.source.name
    reader = connect.consumer(harness.kafka, f"test-{uuid4().hex}", subscribed=False)
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in targets])
    found, behind = [], {partition for partition, target in targets.items() if target}
    while behind:
        for message in reader.consume(10_000, 0.1):
            partition, offset, value = message.partition(), message.offset(), message.value()
            assert partition is not None
            assert offset is not None
            if message.error() is None and value is not None and offset < targets[partition]:
                found.append(harness.codec.decode(value))
            if offset >= targets[partition] - 1:
                behind.discard(partition)
    reader.close()
    return found


def rows(connection: Connection, number: int) -> Totals:
    of = city_totals.c
    wanted = select(of.window_start, of.country, of.city, of.currency, of.total, of.sales_count).where(
        of.generation == number, of.sales_count != 0
    )
    return {
        (row.window_start.date().isoformat(), row.country, row.city, row.currency): (
            row.total,
            row.sales_count,
        )
        for row in connection.execute(wanted)
    }


@contextmanager
def pouring(live: LiveHarness) -> Iterator[None]:
    enough = threading.Event()

    def pour() -> None:
        while not enough.wait(0.01):
            live.harness.feed(40)

    with ThreadPoolExecutor(1) as threads:
        poured = threads.submit(pour)
        try:
            yield
        finally:
            enough.set()
        poured.result(60)


@contextmanager
def another_worker(live: LiveHarness) -> Iterator[None]:
    """In a slot of its own; it joins within some seconds and takes partitions over."""
    stop, harness = threading.Event(), live.harness
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(
            supervisor.run, harness.kafka, live.results, harness.pipeline.name, 1, live.folder / "1", stop
        )
        try:
            yield
        finally:
            stop.set()
        ended.result(60)


def look(live: LiveHarness, numbers: Sequence[int]) -> ReachedBarrier | None:
    """Both generations' rows at a barrier, against the log; None if it was refused."""
    harness = live.harness
    try:
        with (
            hold_at_barrier(harness.kafka, harness.results, harness.pipeline.name, numbers, 20) as barrier,
            harness.results.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        ):
            barrier.check(connection)
            found = [rows(connection, number) for number in numbers]
    except RequestRefused:
        return None
    expected = grouped(events_below(harness, dict(barrier.targets)))
    assert expected
    assert found == [expected for _ in numbers]
    return barrier


@pytest.mark.soak
def test_rows_are_of_exactly_the_events_below_the_targets_while_workers_come_and_go(
    live: LiveHarness,
) -> None:
    live.harness.feed(1000)
    seen: list[ReachedBarrier] = []

    def looked() -> None:
        # A worker that joins in between may be seen by the offsets that it committed: then it is refused.
        seen.append(wait_until(lambda: look(live, (1, 2)), what="look that is not refused"))

    with live.running():
        live.build()
        live.settled(2)
        with pouring(live):
            looked()
            with another_worker(live):
                looked()
                looked()
            looked()
        sums = [sum(barrier.targets.values()) for barrier in seen]
        assert sums == sorted(set(sums)), "each is further than the last"
        live.settled(1)
        live.settled(2)


def test_a_worker_that_joins_while_a_barrier_stands_rests_too_and_goes_on_after_it(live: LiveHarness) -> None:
    harness = live.harness
    harness.feed(500)
    group = harness.generation.names.group_id("combine")

    def shared() -> bool:
        found = harness.admin.describe_consumer_groups([group])[group].result(30)
        return len([member for member in found.members if member.assignment.topic_partitions]) == 2

    with live.running():
        live.settled(1)
        before = live.rows(1)
        # Held partitions move in part to a worker that reads the barrier at its start.
        with (
            hold_at_barrier(harness.kafka, harness.results, harness.pipeline.name, (1,), 60) as barrier,
            closing(Committed(harness.kafka, (harness.generation,))) as committed,
            another_worker(live),
        ):
            harness.feed(200)
            wait_until(shared)
            wait_until(lambda: committed.read(30) == {1: barrier.targets})
            with harness.results.connect() as connection:
                barrier.check(connection)
            assert live.rows(1) == before
        live.settled(1)


def test_a_report_that_comes_late_from_a_former_owner_takes_nothing_back(live: LiveHarness) -> None:
    results, name = live.harness.results, live.harness.pipeline.name
    now = datetime.now(UTC)
    row = {"pipeline": name, "generations": [1], "state": "requested", "created_at": now}
    with results.begin() as connection:
        connection.execute(insert(barriers).values(row | {"expires_at": now + timedelta(minutes=1)}))
    # Each in a process of its own.
    owner, former = Barriers(results), Barriers(results)
    for who, offset in ((owner, 9), (former, 7), (owner, 11)):
        who.look()
        barrier = who.standing(name, 1)
        assert barrier is not None
        who.report(barrier, 1, "combine", {0: offset, 1: 5})
        who.write_reports()
        with results.connect() as connection:
            of = barrier_reports.c
            found = connection.execute(select(of.partition, of.offset).order_by(of.partition)).all()
        assert found == [(0, max(9, offset)), (1, 5)]


def test_a_database_that_goes_away_while_a_barrier_stands_does_not_hold_live_traffic(
    live: LiveHarness, stack: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed)
    monkeypatch.setattr(participants, "time", clock)
    harness = live.harness
    harness.feed(200)
    with live.running():
        live.settled(1)
        holding = hold_at_barrier(harness.kafka, harness.results, harness.pipeline.name, (1,), 600.0)
        barrier = holding.__enter__()
        with away(stack, harness):
            before = harness.actual()
            harness.feed(200)
            passed = 300.0
            assert harness.actual() == before, "held as long as the barrier lasts"
            passed = 600.0 + participants.OVERDUE_SECONDS
            # Totals reach the state topic, although the table cannot show that the barrier is over.
            harness.settled()
        live.settled(1)
        with harness.results.connect() as connection, pytest.raises(RequestRefused, match="moved on"):
            barrier.check(connection)
        holding.__exit__(None, None, None)


@contextmanager
def away(stack: Embedded, harness: PipelineHarness) -> Iterator[None]:
    """The results database refuses logins."""
    name = harness.results.url.database
    superuser = create_engine(stack.postgres(), isolation_level="AUTOCOMMIT")
    with superuser.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    superuser.dispose()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the merge of a generation fails from now on, by its topic of partials."""
    left: dict[str, int] = {}
    add = Merge.add

    def added(self: Merge, messages: Sequence[Message]) -> int:
        if left.get(self.input_topic, 0) > 0:
            left[self.input_topic] -= 1
            raise ZeroDivisionError("a defect")
        return add(self, messages)

    monkeypatch.setattr(Merge, "add", added)
    monkeypatch.setattr(supervisor, "AGAIN_SECONDS", (0.1, 0.1, 0.1))
    return left


@pytest.mark.soak
def test_a_candidate_that_keeps_failing_is_given_up_and_the_active_one_goes_on(
    live: LiveHarness, failing: dict[str, int]
) -> None:
    live.harness.feed(500)
    with live.running():
        candidate = live.build()
        partials = candidate.names.partials.name
        live.settled(2)
        failing[partials] = 2
        live.harness.feed(100)
        live.settled(2)
        live.settled(1)
        assert failing[partials] == 0, "it failed and was tried again"
        failing[partials] = 100
        live.harness.feed(100)
        wait_until(lambda: live.state(2) == "failed")
        wait_until(lambda: not (live.folder / f"{candidate}.slot0").exists())
        live.settled(1)
        live.harness.feed(100)
        live.settled(1)
        of = generations.c
        with live.harness.results.connect() as connection:
            assert connection.scalar(select(of.error).where(of.number == 2)) == (
                "ZeroDivisionError('a defect')"
            )
    assert live.state(1) == "active"


def test_what_fails_in_the_active_one_ends_the_worker(live: LiveHarness, failing: dict[str, int]) -> None:
    live.harness.feed(100)
    partials = live.harness.generation.names.partials.name
    failing[partials] = 1
    harness = live.harness
    with pytest.raises(ZeroDivisionError, match="a defect"):
        supervisor.run(harness.kafka, live.results, harness.pipeline.name, 0, live.folder, threading.Event())
