"""Rows 22, 23 and 25 on real servers: foreign values, a registry that lost its schemas, one that says nothing."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from tests.integration.streaming.ground import START, Ground, wait_until
from tests.unit.streaming.test_foreign_values import BODIES, SCHEMAS

KINDS = ("string", "enum", "array", "map", "union of records", "JSON Schema", "Protobuf", "recursive")
MORE = (
    "array of nothing",
    "amount is a double",
    "fields are missing",
    "milliseconds",
    "polars knows no maps",
)


def produce(ground: Ground, values: dict[bytes, bytes | None]) -> None:
    """As somebody else does, in a transaction of their own."""
    ground.producer.begin_transaction()
    for key, value in values.items():
        ground.producer.produce(ground.source.name, value, key)
    ground.producer.commit_transaction(60)


def test_row_22_foreign_values_are_dead_letters_and_nothing_stops(ground: Ground, stack: Embedded) -> None:
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
    foreign[b"header only"] = header(ground.codec.schema_id)

    ground.feed(200)
    produce(ground, foreign)
    ground.feed(200)
    worker = ground.worker()
    ground.settled()
    produce(ground, {b"alone": header(schema_id)})
    # Ours to the last byte, of somebody who has another registry: under an id of nobody, and under another schema's.
    for number, another in enumerate((424242, ground.positions_codec.schema_id)):
        wait_until(
            lambda n=number: len(ground.read(ground.dead.name)) == len(foreign) + 1 + n, what="a letter"
        )
        produce(ground, {b"": header(another) + ground.codec.encode(ground._event())[5:]})
    ground.feed(50)
    ground.settled()
    letters = [str(letter["reason"]) for letter in letters_of(ground)]
    assert len(letters) == len(foreign) + 3
    assert sum("schema id" in reason for reason in letters) == len(letters) - 3
    assert worker.poll() is None


def letters_of(ground: Ground) -> list[dict[str, object]]:
    codec = ground.registry.codec(ground.dead.subject, load(ground.dead.schema))
    return [codec.decode(value) for _, value in ground.read(ground.dead.name)]


def test_row_25_a_registry_that_says_nothing_is_waited_for_with_a_word(
    ground: Ground, stack: Embedded
) -> None:
    newer = ground.registry.schema(ground.codec.schema_id)
    newer = newer | {"fields": [*newer["fields"], {"name": "shop", "type": "string", "default": ""}]}
    codec = ground.registry.codec(ground.source.subject, newer)
    registry = stack.processes["registry"]
    with ground.running(*ground.loops()):
        ground.feed(100)
        ground.settled()
        registry.send_signal(signal.SIGSTOP)
        try:
            # What is known needs no registry.
            ground.feed(100)
            ground.settled()
            event = ground._event()
            produce(ground, {event["sale_id"].encode(): codec.encode(event | {"shop": "a"})})
            ground.events.append(event)
            wait = wait_until(lambda: WAITS.current(), 60, "a wait")[0]
            assert wait.on == "registry"
            assert stack.registry_url in wait.detail
        finally:
            registry.send_signal(signal.SIGCONT)
        ground.settled()
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
    ground: Ground, empty_registry: KafkaSettings
) -> None:
    ground.feed(300)
    first = ground.worker()
    ground.settled()
    first.terminate()
    assert first.wait(60) == 0
    ground.feed(300)
    whole, ground.kafka = ground.kafka, empty_registry
    # Ids that mean other schemas than in the log, as those of whatever is registered first.
    for number in range(ground.codec.schema_id):
        Registry(empty_registry).register(
            f"other-{number}", {"type": "fixed", "name": f"F{number}", "size": 1}
        )
    lost = ground.worker()
    assert lost.wait(120) == 1
    assert ground.logged(0, "FATAL", "schema registry does not give schema id", "Restore it")
    # A replay has nothing to stumble over but the log.
    former = ground.generation
    number, topics, starts = catalog.lay_out(empty_registry, ground.pipeline, after=former.number)
    ground.generation = replace(
        former,
        number=number,
        topics={name: catalog.TopicIdentity(**topic) for name, topic in topics.items()},
        start_offsets={int(partition): offset for partition, offset in starts.items()},
    )
    combine, merge = ground.loops(1, "elsewhere")
    merge.close()
    with pytest.raises(Fatal, match=f"schema id {ground.codec.schema_id} to SaleEvent"):
        combine.run(threading.Event())
    ground.admin.delete_topics([topic.name for topic in ground.generation.names.all])
    ground.generation = former
    assert ground.read(ground.dead.name) == []
    ground.kafka = whole
    ground.worker()
    ground.settled()
    assert ground.read(ground.dead.name) == []


def test_row_23_schemas_are_put_back_under_their_ids(
    ground: Ground, empty_registry: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.feed(300, frontier=START)
    first = ground.worker()
    ground.settled()
    first.terminate()
    assert first.wait(60) == 0
    ground.feed(300)
    # As in a log that outlived a registry: the same schema under an earlier id, and under a later one.
    subject, more = ground.source.subject, [ground.codec.schema_id + number for number in (5_000, 6_000)]
    for schema_id in more:
        event = ground._event()
        value = header(schema_id) + ground.codec.encode(event)[5:]
        produce(ground, {event["sale_id"].encode(): value})
        ground.events.append(event)
    names, pipeline = ground.generation.names, ground.pipeline
    ours = {
        ground.source.name: load(ground.source.schema),
        ground.positions.name: load(ground.positions.schema),
        ground.dead.name: load(ground.dead.schema),
        names.partials.name: pipeline.partial_schema(),
        names.state.name: pipeline.state_schema(),
        names.progress.name: load(names.progress.schema),
    }
    monkeypatch.setattr("streaming.generations.catalog.lost_schemas.ours", lambda _: ours)
    for name, value in {
        "KAFKA_BOOTSTRAP": empty_registry.kafka_bootstrap,
        "SCHEMA_REGISTRY_URL": empty_registry.schema_registry_url,
        "RESULTS_DB_URL": ground.results_url,
    }.items():
        monkeypatch.setenv(f"ELECTRORED_{name}", value)
    said = CliRunner().invoke(app, ["schemas"])
    assert said.exit_code != 0
    assert said.output.count("not in the registry") == len(ours) - 1 + len(more), (
        "of a topic without values nothing is known"
    )
    said = CliRunner().invoke(app, ["schemas", "--restore"])
    assert said.exit_code == 0, said.output
    assert f"{ground.codec.schema_id:>6} {ground.source.subject}\n" in said.output
    # Another that is put back later, of a subject that is there.
    last = lost_schemas.Given(subject, more[-1] + 1_000, load(ground.source.schema))
    lost_schemas.put_back(empty_registry, [last])
    assert lost_schemas.wrong(empty_registry, [last]) == []
    assert Registry(empty_registry).register(subject, last.schema) in (*more, last.schema_id)
    ground.kafka = empty_registry
    second = ground.worker()
    ground.settled()
    assert ground.read(ground.dead.name) == []
    assert second.poll() is None
