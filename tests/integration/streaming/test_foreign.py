"""Rows 22, 23 and 25 on real servers: foreign values, a registry that lost its schemas, one that is silent."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.schema_registry import Schema
from typer.testing import CliRunner

from contracts.schemas import load
from contracts.settings import KafkaSettings
from kafka_client.errors import Fatal
from kafka_client.registry import Registry, header
from observability.waits import WAITS
from stack import databases, embedded, ports
from stack.embedded import Embedded
from stack.registry import Registry as RegistryServer
from streaming.__main__ import app
from streaming.generations import catalog, lost_schemas
from tests.support.foreign_values import BODIES, SCHEMAS
from tests.support.pipeline_harness import START, PipelineHarness
from tests.support.waiting import wait_until

KINDS = ("string", "enum", "array", "map", "union of records", "JSON Schema", "Protobuf", "recursive")
MORE = (
    "array of nothing",
    "amount is a double",
    "fields are missing",
    "milliseconds",
    "polars knows no maps",
)


def has_letters(harness: PipelineHarness, count: int) -> bool:
    return len(harness.read(harness.dead.name)) == count


def produce(harness: PipelineHarness, values: dict[bytes, bytes | None]) -> None:
    """As a foreign producer, in its own transaction."""
    harness.producer.begin_transaction()
    for key, value in values.items():
        harness.producer.produce(harness.source.name, value, key)
    harness.producer.commit_transaction(60)


def test_row_22_foreign_values_are_dead_letters_and_nothing_stops(
    harness: PipelineHarness, stack: Embedded
) -> None:
    client = Registry(stack.kafka)._client
    foreign: dict[bytes, bytes | None] = {b"tombstone": None, b"\xff\xfe": b"", b"short": b"\x00\x00\x00\x00"}
    for name in (*KINDS, *MORE):
        text, kind = SCHEMAS[name]
        schema_id = client.register_schema(f"{uuid4().hex}-value", Schema(text, kind))
        foreign |= {
            f"{name} {body}".encode(): header(schema_id) + BODIES[body] for body in ("string", "ones", "deep")
        }
    deleted = f"{uuid4().hex}-value"
    schema_id = client.register_schema(
        deleted, Schema(json.dumps({"type": "fixed", "name": "Deleted", "size": 3}))
    )
    client.delete_subject(deleted)
    client.delete_subject(deleted, permanent=True)
    for unknown in (schema_id, 0, 2**31 - 1, 2**31, 2**32 - 1):
        foreign[str(unknown).encode()] = header(unknown) + b"x" * 50
    foreign[b"header only"] = header(harness.codec.schema_id)

    harness.feed(200)
    produce(harness, foreign)
    harness.feed(200)
    worker = harness.worker()
    harness.settled()
    produce(harness, {b"alone": header(schema_id)})
    # Ours to the last byte, of another registry: under an unused id, and under another schema's.
    for number, another in enumerate((424242, harness.positions_codec.schema_id)):
        wait_until(partial(has_letters, harness, len(foreign) + 1 + number), what="a letter")
        produce(harness, {b"": header(another) + harness.codec.encode(harness._event())[5:]})
    harness.feed(50)
    harness.settled()
    letters = [str(letter["reason"]) for letter in letters_of(harness)]
    assert len(letters) == len(foreign) + 3
    assert sum("schema id" in reason for reason in letters) == len(letters) - 3
    assert worker.poll() is None


def letters_of(harness: PipelineHarness) -> list[dict[str, object]]:
    codec = harness.registry.codec(harness.dead.subject, load(harness.dead.schema))
    return [codec.decode(value) for _, value in harness.read(harness.dead.name)]


def test_row_25_a_registry_that_says_nothing_is_waited_for_with_a_word(
    harness: PipelineHarness, stack: Embedded
) -> None:
    newer = harness.registry.schema(harness.codec.schema_id)
    newer = newer | {"fields": [*newer["fields"], {"name": "shop", "type": "string", "default": ""}]}
    codec = harness.registry.codec(harness.source.subject, newer)
    registry = stack.processes["registry"]
    with harness.running(*harness.loops()):
        harness.feed(100)
        harness.settled()
        registry.send_signal(signal.SIGSTOP)
        try:
            # Cached schemas need no registry.
            harness.feed(100)
            harness.settled()
            event = harness._event()
            produce(harness, {event["sale_id"].encode(): codec.encode(event | {"shop": "a"})})
            harness.events.append(event)
            wait = wait_until(lambda: WAITS.current(), 60, "a wait")[0]
            assert wait.on == "registry"
            assert stack.registry_url in wait.detail
        finally:
            registry.send_signal(signal.SIGCONT)
        harness.settled()
        wait_until(lambda: not WAITS.current(), what="the end of the wait")


@pytest.fixture
def empty_registry(stack: Embedded, tmp_path: Path) -> Iterator[KafkaSettings]:
    """The registry as it is when its database was emptied."""
    name = f"registry_{uuid4().hex[:8]}"
    databases.create_database(stack.postgres(), name, owner=databases.REGISTRY_ROLE)
    with _registry(stack, name, tmp_path) as settings:
        yield settings
    databases.drop_database(stack.postgres(), name)


@contextmanager
def _registry(stack: Embedded, database: str, folder: Path) -> Iterator[KafkaSettings]:
    port, management = ports.free(2)
    server = RegistryServer(folder, port, management, stack.postgres(database, databases.REGISTRY_ROLE))
    with embedded.child(
        server.command, server.environment, folder / "registry.log", stop=signal.SIGTERM, user=None
    ) as process:
        embedded.until_ready("registry", server.is_ready, process, folder)
        yield stack.kafka.model_copy(update={"schema_registry_url": server.url})


def test_row_23_a_registry_without_its_schemas_stops_with_a_way_on(
    harness: PipelineHarness, empty_registry: KafkaSettings
) -> None:
    harness.feed(300)
    first = harness.worker()
    harness.settled()
    first.terminate()
    assert first.wait(60) == 0
    harness.feed(300)
    whole, harness.kafka = harness.kafka, empty_registry
    # Ids that mean other schemas than in the log, as those of whatever is registered first.
    for number in range(harness.codec.schema_id):
        Registry(empty_registry).register(
            f"other-{number}", {"type": "fixed", "name": f"F{number}", "size": 1}
        )
    lost = harness.worker()
    assert lost.wait(120) == 1
    assert harness.logged(0, "FATAL", "schema registry does not give schema id", "Restore it")
    # A replay finds unknown ids in the log only.
    former = harness.generation
    number, topics, starts = catalog.lay_out(empty_registry, harness.pipeline, after=former.number)
    harness.generation = replace(
        former,
        number=number,
        topics={name: catalog.TopicIdentity(**topic) for name, topic in topics.items()},
        start_offsets={int(partition): offset for partition, offset in starts.items()},
    )
    combine, merge = harness.loops(1, "elsewhere")
    merge.close()
    with pytest.raises(Fatal, match=f"schema id {harness.codec.schema_id} to SaleEvent"):
        combine.run(threading.Event())
    harness.admin.delete_topics([topic.name for topic in harness.generation.names.all])
    harness.generation = former
    assert harness.read(harness.dead.name) == []
    harness.kafka = whole
    harness.worker()
    harness.settled()
    assert harness.read(harness.dead.name) == []


@pytest.mark.soak
def test_row_23_schemas_are_put_back_under_their_ids(
    harness: PipelineHarness, empty_registry: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.feed(300, frontier=START)
    first = harness.worker()
    harness.settled()
    first.terminate()
    assert first.wait(60) == 0
    harness.feed(300)
    # As in a log that outlived a registry: the same schema under an earlier id, and under a later one.
    subject, more = harness.source.subject, [harness.codec.schema_id + number for number in (5_000, 6_000)]
    for schema_id in more:
        event = harness._event()
        value = header(schema_id) + harness.codec.encode(event)[5:]
        produce(harness, {event["sale_id"].encode(): value})
        harness.events.append(event)
    names, pipeline = harness.generation.names, harness.pipeline
    ours = {
        harness.source.name: load(harness.source.schema),
        harness.positions.name: load(harness.positions.schema),
        harness.dead.name: load(harness.dead.schema),
        names.partials.name: pipeline.partial_schema(),
        names.state.name: pipeline.state_schema(),
        names.progress.name: load(names.progress.schema),
    }
    monkeypatch.setattr("streaming.generations.lost_schemas.live_schemas", lambda _: ours)
    for name, setting in {
        "KAFKA_BOOTSTRAP": empty_registry.kafka_bootstrap,
        "SCHEMA_REGISTRY_URL": empty_registry.schema_registry_url,
        "RESULTS_DB_URL": harness.results_url,
    }.items():
        monkeypatch.setenv(f"ELECTRORED_{name}", setting)
    said = CliRunner().invoke(app, ["schemas"])
    assert said.exit_code != 0
    assert said.output.count("not in the registry") == len(ours) - 1 + len(more), (
        "of a topic without values nothing is known"
    )
    said = CliRunner().invoke(app, ["schemas", "--restore"])
    assert said.exit_code == 0, said.output
    assert f"{harness.codec.schema_id:>6} {harness.source.subject}\n" in said.output
    # Another that is put back later, of a subject that is there.
    last = lost_schemas.TopicSchema(subject, more[-1] + 1_000, load(harness.source.schema))
    lost_schemas.put_back(empty_registry, [last])
    assert lost_schemas.wrong(empty_registry, [last]) == []
    assert Registry(empty_registry).register(subject, last.schema) in (*more, last.schema_id)
    harness.kafka = empty_registry
    second = harness.worker()
    harness.settled()
    assert harness.read(harness.dead.name) == []
    assert second.poll() is None
