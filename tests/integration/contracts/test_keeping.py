"""Row 24: topics that lose records are put right or refused, and nothing is computed from what is left of a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

import contracts.__main__ as command
from contracts.settings import ResultsDbSettings
from contracts.topics import (
    DEAD_LETTERS,
    PAYMENT_CONFIRMATIONS,
    SALES_EVENTS,
    SOURCE_POSITIONS,
    Topic,
)
from kafka_client import clients as connect
from kafka_client import topic_settings
from kafka_client.errors import Fatal, Refused
from observer import probes
from sources.csv.own_events import Log
from sources.events_topic import EventsTopic
from sources.position_store import PositionStore
from stack.embedded import Embedded
from streaming.generations import catalog
from streaming.generations.schema_ids import keep
from streaming.generations.worker import Worker
from tests.support.kafka import produce, topic_codec
from tests.support.pipeline_harness import PipelineHarness

WEEK = str(7 * 24 * 3600 * 1000)


@dataclass
class Topics:
    """Topics like the public ones, of the test's own, created with settings that lose records."""

    stack: Embedded
    admin: AdminClient
    events: Topic
    payments: Topic
    positions: Topic
    dead: Topic

    @property
    def all(self) -> Sequence[Topic]:
        return self.events, self.payments, self.positions, self.dead

    def make(self, topic: Topic, **config: str) -> None:
        config = {name.replace("_", "."): value for name, value in config.items()}
        name = topic.name
        self.admin.create_topics([NewTopic(name, topic.partitions, 1, config=config)])[name].result()
        connect.ensure_topics(self.stack.kafka, [topic])

    def set(self, topic: str, setting: str, value: str) -> None:
        entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result()

    def setting(self, topic: Topic, setting: str) -> str | None:
        resource = ConfigResource(ResourceType.TOPIC, topic.name)
        value = self.admin.describe_configs([resource])[resource].result()[setting].value
        return None if value is None else str(value)

    def write(self, topic: Topic) -> None:
        for number in range(topic.partitions):
            produce(self.stack.kafka, topic, [b"value"], partition=number)

    def delete(self, topic: str) -> None:
        """As kafka-delete-records.sh does it."""
        place = TopicPartition(topic, 0, 1)
        self.admin.delete_records([place])[place].result()


@pytest.fixture
def topics(stack: Embedded, monkeypatch: pytest.MonkeyPatch) -> Iterator[Topics]:
    suffix = uuid4().hex[:10]
    four = [
        replace(topic, name=f"{topic.name}-{suffix}")
        for topic in (SALES_EVENTS, PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS, DEAD_LETTERS)
    ]
    made = Topics(stack, connect.admin(stack.kafka), *four)
    monkeypatch.setattr(command, "PUBLIC", made.all)
    monkeypatch.setattr(probes, "PUBLIC", made.all)
    yield made
    there = topic_settings.existing(stack.kafka, made.all)
    if there:
        for future in made.admin.delete_topics([topic.name for topic in there]).values():
            future.exception()


@pytest.fixture
def setup(stack: Embedded, results_db: ResultsDbSettings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("ELECTRORED_KAFKA_BOOTSTRAP", stack.bootstrap)
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", stack.registry_url)
    monkeypatch.setenv("ELECTRORED_RESULTS_DB_URL", results_db.results_db_url.get_secret_value())
    return CliRunner()


def not_kept(topics: Topics, results_db: ResultsDbSettings) -> set[tuple[str, str]]:
    """What the observer shows of it."""
    results = create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool)
    return {
        (sample.labels["topic"], sample.labels["setting"])
        for sample in probes.probe_topics(topics.stack.kafka, results)
    }


def test_row_24_setup_puts_settings_right_and_says_which(
    topics: Topics, setup: CliRunner, results_db: ResultsDbSettings
) -> None:
    """And before that, every source refuses to write into them; the observer shows each."""
    events, payments, positions, dead = topics.all
    topics.make(events, retention_ms=WEEK)
    topics.make(payments, cleanup_policy="compact")
    topics.make(positions, cleanup_policy="compact,delete")
    topics.make(dead, retention_bytes="1000000")
    topics.write(events)
    kafka = topics.stack.kafka
    with pytest.raises(
        Refused, match=f"{events.name}: retention.ms is {WEEK} and has to be -1.*contracts setup"
    ):
        EventsTopic(kafka, events).identity()
    with pytest.raises(Refused, match=r"cleanup\.policy is compact and has to be delete"):
        EventsTopic(kafka, payments).identity()
    with pytest.raises(
        Refused, match=f"{positions.name}: cleanup.policy is compact,delete and has to be compact"
    ):
        PositionStore(kafka, "test", f"test-{events.name}", positions, events).open()
    assert not_kept(topics, results_db) == {
        (events.name, "retention.ms"),
        (events.name, "message.timestamp.type"),
        (payments.name, "cleanup.policy"),
        (payments.name, "retention.ms"),
        (payments.name, "message.timestamp.type"),
        (positions.name, "cleanup.policy"),
        (dead.name, "cleanup.policy"),
    }
    done = setup.invoke(command.app, ["setup"])
    assert done.exit_code == 0, done.output
    assert f"put right: topic {events.name}: retention.ms is {WEEK} and has to be -1" in done.output
    for topic in topics.all:
        for name, value in topic.kept.items():
            assert topics.setting(topic, name) == value, (topic.name, name)
    assert not_kept(topics, results_db) == set()
    again = setup.invoke(command.app, ["setup"]).output
    assert not [line for line in again.splitlines() if line.startswith("put right")]
    EventsTopic(kafka, events).identity()


def test_row_24_a_log_that_was_compacted_is_for_a_person_to_judge(topics: Topics, setup: CliRunner) -> None:
    """What compaction took out leaves no trace, so `setup` leaves it to a person."""
    topics.make(topics.events, cleanup_policy="compact", message_timestamp_type="LogAppendTime")
    topics.write(topics.events)
    done = setup.invoke(command.app, ["setup"])
    assert done.exit_code == 1
    assert f"topic {topics.events.name} was compacted" in done.output
    assert f"--alter --topic {topics.events.name} --add-config cleanup.policy=delete" in done.output
    assert topics.setting(topics.events, "cleanup.policy") == "compact"


def test_row_24_deleted_records_are_refused_where_something_new_is_computed(
    topics: Topics, setup: CliRunner, results_db: ResultsDbSettings
) -> None:
    connect.ensure_topics(topics.stack.kafka, topics.all)
    topics.write(topics.events)
    topics.delete(topics.events.name)
    done = setup.invoke(command.app, ["setup"])
    assert done.exit_code == 1
    assert f"topic {topics.events.name} partition 0 begins at offset 1" in done.output
    assert "docs/runbooks/TopicNotKept.md" in done.output
    assert not_kept(topics, results_db) == {(topics.events.name, "beginning")}
    kafka = topics.stack.kafka
    # Rows of files that were taken are recognized by their events in the log.
    topic_id, partitions = EventsTopic(kafka, topics.events).identity()
    log = Log(kafka, topics.events, topic_codec(kafka, topics.events), topic_id, partitions)
    with pytest.raises(Refused, match="a row that was taken would count again"):
        list(log.events({}))
    assert list(log.events(log.ends())) == []
    # A position is only there while its topic is whole.
    topics.set(topics.positions.name, "cleanup.policy", "delete")
    topics.write(topics.positions)
    topics.delete(topics.positions.name)
    topics.set(topics.positions.name, "cleanup.policy", "compact")
    with pytest.raises(Refused, match=f"{topics.positions.name} partition 0 begins at offset 1"):
        PositionStore(kafka, "test", f"test-{topics.events.name}", topics.positions, topics.events).open()


def test_row_24_no_generation_is_computed_from_what_is_left_and_the_live_one_goes_on(
    stack: Embedded, results_db: ResultsDbSettings, tmp_path: Path, topics: Topics, setup: CliRunner
) -> None:
    harness = PipelineHarness(stack.kafka, results_db.results_db_url.get_secret_value(), tmp_path)
    try:
        harness.feed(200)
        with harness.running(*harness.loops()):
            harness.settled()
        topics.delete(harness.source.name)
        with pytest.raises(Fatal, match=f"{harness.source.name} partition 0 begins at offset 1"):
            catalog.lay_out(stack.kafka, harness.pipeline, after=1)
        # It has counted what is gone, so it is right; partials are deleted by design.
        partials, state, _ = harness.generation.names.all
        topics.delete(partials.name)
        harness.feed(200)
        with harness.running(*harness.loops()):
            harness.settled()
        # What it keeps itself is another matter.
        topics.set(state.name, "cleanup.policy", "delete")
        worker = Worker(
            stack.kafka, harness.pipeline, harness.generation, 0, tmp_path, partial(keep, harness.results)
        )
        with pytest.raises(Fatal, match=f"{state.name}: cleanup.policy is delete and has to be compact"):
            worker.check()
        connect.ensure_topics(stack.kafka, topics.all)
        assert (state.name, "cleanup.policy") in not_kept(topics, results_db)
        done = setup.invoke(command.app, ["setup"])
        assert done.exit_code == 0, done.output
        assert f"put right: topic {state.name}: cleanup.policy is delete" in done.output
        worker.check()
        topics.set(state.name, "cleanup.policy", "delete")
        topics.delete(state.name)
        topics.set(state.name, "cleanup.policy", "compact")
        with pytest.raises(Fatal, match=f"{state.name} partition 0 begins at offset 1"):
            worker.check()
    finally:
        harness.close()
