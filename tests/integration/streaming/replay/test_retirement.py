"""Retiring: rows, groups and topics are gone, whatever ended the first attempt; what is in use stays."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from random import randrange

import httpx2
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import SchemaRegistryClient
from sqlalchemy import Engine, func, insert, select, text

from contracts.schemas import load
from contracts.tables import barriers, city_totals, difference_rows, differences, sink_positions
from contracts.topics import GenerationTopics
from kafka_client.clients import admin, consumer, ensure_topics
from kafka_client.errors import Retriable
from kafka_client.registry import Registry
from stack.embedded import Embedded
from streaming.pipelines import PIPELINES
from streaming.replay import difference, retirement
from streaming.replay.advisory_lock import is_worked_on, working_on
from streaming.replay.errors import RequestRefused
from streaming.replay.retirement import Retired
from tests.support.results import BarrierHold, ResultsFixture, city

PIPELINE = "top-sales-by-city"
ROWS = 25
# Topics share one Kafka: every test has a number of its own.
_numbers = count(randrange(10_000, 1_000_000) * 1000)


class Doomed:
    """A candidate with all that belongs to one: rows, positions, a difference, topics, groups with offsets."""

    def __init__(self, stack: Embedded, filled: ResultsFixture) -> None:
        self.number = next(_numbers) % 2**31
        self.names = GenerationTopics(PIPELINE, self.number)
        self._filled = filled
        self._kafka = stack.kafka
        self._client: AdminClient = admin(stack.kafka)
        filled.generation(self.number, "candidate")
        filled.write(self.number, [city(f"c{n}", "1") for n in range(ROWS)])
        with filled.engine.begin() as connection:
            connection.execute(
                text("INSERT INTO sink_positions VALUES (:pipeline, :number, 0, 'x', 7)"),
                {"pipeline": PIPELINE, "number": self.number},
            )
        difference.take(stack.kafka, filled.engine, PIPELINE, self.number, hold=BarrierHold())
        ensure_topics(stack.kafka, self.names.all)
        registry = Registry(stack.kafka)
        pipeline = PIPELINES[PIPELINE, 1]
        self.schema_id = registry.register(self.names.state.subject, pipeline.state_schema())
        registry.register(self.names.partials.subject, pipeline.partial_schema())
        registry.register(self.names.progress.subject, load(self.names.progress.schema))
        for step in ("combine", "merge"):
            with closing(consumer(stack.kafka, self.names.group_id(step), subscribed=False)) as reader:
                reader.commit(offsets=[TopicPartition(self.names.partials.name, 0, 0)], asynchronous=False)

    def member(self) -> Consumer:
        """A worker in the group of merge."""
        worker = consumer(self._kafka, self.names.group_id("merge"))
        worker.subscribe([self.names.partials.name])
        while not worker.assignment():
            worker.consume(1, 0.1)
        return worker

    def left(self) -> dict[str, int]:
        """What there still is of it."""
        found = {
            table.name: self._count(select(func.count()).select_from(table).where(column == self.number))
            for table, column in (
                (city_totals, city_totals.c.generation),
                (sink_positions, sink_positions.c.generation),
            )
        }
        found["difference_rows"] = self._count(
            select(func.count())
            .select_from(difference_rows.join(differences, differences.c.id == difference_rows.c.difference))
            .where(differences.c.generation == self.number)
        )
        topics = self._client.list_topics(timeout=30).topics
        found["topics"] = sum(topic.name in topics for topic in self.names.all)
        groups = {group.group_id for group in self._client.list_consumer_groups().result().valid}
        found["groups"] = sum(self.names.group_id(step) in groups for step in ("combine", "merge"))
        url = f"{self._kafka.schema_registry_url}/subjects"
        # Soft-deleted ones are left, too.
        subjects = httpx2.get(url, params={"deleted": "true"}).raise_for_status().json()
        found["subjects"] = sum(topic.subject in subjects for topic in self.names.all)
        return {name: number for name, number in found.items() if number}

    def _count(self, wanted: object) -> int:
        with self._filled.engine.connect() as connection:
            return int(connection.scalar(wanted))  # type: ignore[call-overload]

    def row(self) -> tuple[str, datetime | None]:
        with self._filled.engine.connect() as connection:
            found = connection.execute(
                text("SELECT state, retired_at FROM generations WHERE number = :n"), {"n": self.number}
            ).one()
            return found.state, found.retired_at


@pytest.fixture
def filled(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> ResultsFixture:
    monkeypatch.setattr(retirement, "BATCH_ROWS", 10)
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.write(1, [city("Berlin", "1")])
    return filled


@pytest.fixture
def doomed(stack: Embedded, filled: ResultsFixture) -> Iterator[Doomed]:
    made = Doomed(stack, filled)
    yield made
    client = admin(stack.kafka)
    for future in client.delete_topics([topic.name for topic in made.names.all]).values():
        # Most tests leave none.
        with suppress(KafkaException):
            future.result()


def test_nothing_is_left_but_its_row_and_what_its_differences_came_to(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed
) -> None:
    assert doomed.left() == {
        "city_totals": ROWS,
        "sink_positions": 1,
        "difference_rows": ROWS + 1,
        "topics": 3,
        "groups": 2,
        "subjects": 3,
    }
    done = retirement.retire(stack.kafka, filled.engine, PIPELINE, doomed.number)
    assert done == Retired(PIPELINE, doomed.number, rows=ROWS, topics=3)
    assert doomed.left() == {}
    state, retired_at = doomed.row()
    assert (state, retired_at is None) == ("retired", False)
    with filled.engine.connect() as connection:
        assert connection.scalar(text("SELECT added FROM differences")) == ROWS
        assert connection.scalar(text("SELECT count(*) FROM top_sales_by_city")) == 1, (
            "the active one is untouched"
        )


def test_schemas_that_another_generation_has_as_well_stay_its_own(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed
) -> None:
    subject, schema = GenerationTopics(PIPELINE, 1).state.subject, PIPELINES[PIPELINE, 1].state_schema()
    assert Registry(stack.kafka).register(subject, schema) == doomed.schema_id, "one schema has one id"
    retirement.retire(stack.kafka, filled.engine, PIPELINE, doomed.number)
    # New ones, which have looked nothing up yet.
    assert len(Registry(stack.kafka).schema(doomed.schema_id)) == len(schema)
    assert Registry(stack.kafka).register(subject, schema) == doomed.schema_id


def test_a_registry_that_is_away_is_waited_for_by_the_next_call(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed
) -> None:
    away = stack.kafka.model_copy(update={"schema_registry_url": "http://127.0.0.1:1"})
    with pytest.raises(Retriable, match="the schema registry does not answer"):
        retirement.retire(away, filled.engine, PIPELINE, doomed.number)
    assert doomed.left() == {"subjects": 3}
    assert doomed.row()[1] is None
    # Where only the soft deletion was done.
    SchemaRegistryClient({"url": stack.kafka.schema_registry_url}).delete_subject(
        doomed.names.partials.subject
    )
    assert [found.generation for found in retirement.retire_old_standbys(stack.kafka, filled.engine)] == [
        doomed.number
    ]
    assert doomed.left() == {}


def test_old_barriers_go_with_what_was_reported_to_them(stack: Embedded, filled: ResultsFixture) -> None:
    now = datetime.now(UTC)
    with filled.engine.begin() as connection:
        for number, (state, days) in enumerate(
            [("released", 8), ("requested", 8), ("released", 6), ("reached", 0)]
        ):
            at = now - timedelta(days=days)
            connection.execute(
                insert(barriers).values(
                    pipeline=f"p{number}", generations=[1], state=state, created_at=at, expires_at=at
                )
            )
        connection.execute(
            text(
                "INSERT INTO barrier_reports SELECT id, 1, 'combine', p, 7 FROM barriers, generate_series(0, 2) p"
            )
        )
    assert retirement.retire_old_standbys(stack.kafka, filled.engine, now=now) == []
    with filled.engine.connect() as connection:
        left = connection.execute(text("SELECT id, pipeline FROM barriers ORDER BY id")).all()
        reported = connection.scalars(text("SELECT barrier FROM barrier_reports ORDER BY barrier")).all()
    assert [pipeline for _, pipeline in left] == ["p2", "p3"]
    assert reported == [number for number, _ in left for _ in range(3)]


def test_asked_again_there_is_nothing_left_to_do(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed
) -> None:
    retirement.retire(stack.kafka, filled.engine, PIPELINE, doomed.number)
    before = doomed.row()
    again = retirement.retire(stack.kafka, filled.engine, PIPELINE, doomed.number)
    assert again == Retired(PIPELINE, doomed.number, rows=0, topics=0)
    assert doomed.row() == before


@pytest.mark.parametrize(("number", "line"), [(1, "g1 is active"), (9, "no generation 9")])
def test_the_active_one_is_not_retired(
    stack: Embedded, filled: ResultsFixture, number: int, line: str
) -> None:
    before = filled.everything()
    with pytest.raises(RequestRefused, match=line):
        retirement.retire(stack.kafka, filled.engine, PIPELINE, number)
    assert filled.everything() == before


def test_what_is_being_built_is_not_retired_and_what_a_dead_job_left_is(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed
) -> None:
    with filled.engine.begin() as connection:
        connection.execute(
            text("UPDATE generations SET state = 'building' WHERE number = :n"), {"n": doomed.number}
        )
    with (
        working_on(filled.engine, PIPELINE, doomed.number),
        working_on(filled.engine, PIPELINE, doomed.number),
    ):
        before = filled.everything()
        with pytest.raises(RequestRefused, match="is being built right now"):
            retirement.retire(stack.kafka, filled.engine, PIPELINE, doomed.number)
        assert filled.everything() == before
    retirement.retire(stack.kafka, filled.engine, PIPELINE, doomed.number)
    assert doomed.left() == {}


def test_what_is_held_at_a_barrier_is_not_retired(stack: Embedded, filled: ResultsFixture) -> None:
    """The active one would be held as well, and wait for it in vain."""
    filled.generation(2, "candidate")
    before = filled.states()
    with BarrierHold()(stack.kafka, filled.engine, PIPELINE, (1, 2), 60):
        with pytest.raises(RequestRefused, match="is being compared or promoted"):
            retirement.retire(stack.kafka, filled.engine, PIPELINE, 2)
        assert filled.states() == before
    assert retirement.retire(stack.kafka, filled.engine, PIPELINE, 2).generation == 2


def test_who_works_on_it_no_more_is_known_to_be_gone_at_once(filled: ResultsFixture) -> None:
    for _ in range(50):
        with working_on(filled.engine, PIPELINE, 1), filled.engine.begin() as connection:
            assert is_worked_on(connection, PIPELINE, 1)
        with filled.engine.begin() as connection:
            assert not is_worked_on(connection, PIPELINE, 1)


def test_nobody_begins_on_what_is_being_retired(filled: ResultsFixture) -> None:
    with filled.engine.begin() as connection:
        assert not is_worked_on(connection, PIPELINE, 2)
        with (
            pytest.raises(RequestRefused, match="g2 is being retired"),
            working_on(filled.engine, PIPELINE, 2),
        ):
            pass
    with working_on(filled.engine, PIPELINE, 2):
        pass


def test_a_worker_that_is_still_there_is_waited_for(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = doomed.member()
    with ThreadPoolExecutor(1) as threads, closing(worker):
        with monkeypatch.context() as patched:
            patched.setattr(retirement, "LEAVING_SECONDS", 1.0)
            with pytest.raises(Retriable, match=r"a worker is still in its group .*\.merge"):
                retirement.retire(stack.kafka, filled.engine, PIPELINE, doomed.number)
        assert doomed.left()["topics"] == 3, "what a worker reads is not deleted under it"
        going_on = threads.submit(retirement.retire, stack.kafka, filled.engine, PIPELINE, doomed.number)
        worker.close()
        assert going_on.result(60).topics == 3
    assert doomed.left() == {}


@pytest.mark.parametrize(
    "failpoint",
    [
        "retire.marked",
        "retire.batch",
        "retire.rows",
        "retire.groups",
        "retire.topics",
        "retire.subjects",
        "retire.done",
    ],
)
def test_killed_anywhere_the_same_call_again_finishes_it(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed, child: Callable[..., int], failpoint: str
) -> None:
    assert child("retire", doomed.number, failpoint=failpoint) == -signal.SIGKILL
    assert doomed.row()[0] == "retired", "nobody works on half of it"
    assert child("retire", doomed.number) == 0
    assert doomed.left() == {}
    assert doomed.row()[1] is not None


def test_a_standby_is_retired_after_its_time_and_what_was_begun_is_finished(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed
) -> None:
    now = datetime.now(UTC)
    old, young = doomed.number, 2
    filled.generation(young, "standby")
    with filled.engine.begin() as connection:
        for number, days in ((old, 8), (young, 6)):
            connection.execute(
                text("UPDATE generations SET state = 'standby', standby_at = :at WHERE number = :number"),
                {"at": now - timedelta(days=days), "number": number},
            )
    assert [done.generation for done in retirement.retire_old_standbys(stack.kafka, filled.engine)] == [old]
    assert filled.states() == {1: "active", young: "standby", old: "retired"}
    with filled.engine.begin() as connection:
        connection.execute(text("UPDATE generations SET retired_at = NULL WHERE number = :n"), {"n": old})
    assert [done.generation for done in retirement.retire_old_standbys(stack.kafka, filled.engine)] == [old]
    assert retirement.retire_old_standbys(stack.kafka, filled.engine) == []


def test_one_that_cannot_be_retired_now_keeps_no_other(
    stack: Embedded, filled: ResultsFixture, doomed: Doomed
) -> None:
    held, old = 2, doomed.number
    filled.generation(held, "standby")
    with filled.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE generations SET state = 'standby', standby_at = now() - interval '8 days' WHERE number > 1"
            )
        )
    with (
        BarrierHold()(stack.kafka, filled.engine, PIPELINE, (1, held), 60),
        pytest.raises(Retriable, match=f"g{held} is being compared"),
    ):
        retirement.retire_old_standbys(stack.kafka, filled.engine)
    assert filled.states() == {1: "active", held: "standby", old: "retired"}
