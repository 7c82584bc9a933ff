"""Schema ids of the values in our topics, and restoring their schemas under these ids in a registry that lost them.

The schemas are shipped with the code, their ids are in the topics: in the first and last values of each partition, as
far as they decode as the topic's schema to the last byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaException, TopicPartition
from sqlalchemy import Engine

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import PUBLIC
from kafka_client.clients import TIMEOUT_SECONDS, admin, consumer
from kafka_client.error_codes import is_end
from kafka_client.registry import Registry, is_record, schema_id_of
from kafka_client.writer_schemas import Undecodable
from streaming.generations.catalog import load_live
from streaming.pipelines import PIPELINES

# At each end of a partition.
SAMPLED_RECORDS = 100
END_SECONDS = 2.0


@dataclass(frozen=True)
class TopicSchema:
    """A schema of a topic's values, and its id in them."""

    subject: str
    schema_id: int
    schema: Any


def live_schemas(results: Engine) -> dict[str, Any]:
    """The schema of each topic: the public ones, and those of live generations."""
    schemas = {topic.name: load(topic.schema) for topic in PUBLIC}
    for pipeline in {name for name, _ in PIPELINES}:
        for generation in load_live(results, pipeline):
            of_version, names = PIPELINES[pipeline, generation.version], generation.names
            schemas[names.partials.name] = of_version.partial_schema()
            schemas[names.state.name] = of_version.state_schema()
            schemas[names.progress.name] = load(names.progress.schema)
    return schemas


def ids_in_topics(kafka: KafkaSettings, schemas: Mapping[str, Any]) -> list[TopicSchema]:
    """The ids in the topics, by topic; none of an empty topic. Raises KafkaException."""
    known = admin(kafka).list_topics(timeout=TIMEOUT_SECONDS).topics
    reader = consumer(kafka, "electrored.standing", subscribed=False, overrides={"fetch.wait.max.ms": 20})
    try:
        return [
            TopicSchema(f"{topic}-value", schema_id, schema)
            for topic, schema in schemas.items()
            if topic in known
            for schema_id in _ids(reader, topic, known[topic].partitions, schema)
        ]
    finally:
        reader.close()


def _ids(reader: Consumer, topic: str, partitions: Iterable[int], schema: Any) -> list[int]:
    parsed = fastavro.parse_schema(schema)
    ids: set[int] = set()
    for value in _values(reader, topic, partitions):
        try:
            if schema_id_of(value) not in ids and is_record(value, parsed):
                ids.add(schema_id_of(value))
        except Undecodable:
            continue
    return sorted(ids)


def _values(reader: Consumer, topic: str, partitions: Iterable[int]) -> Iterator[bytes]:
    for partition in partitions:
        low, high = reader.get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_SECONDS)
        for start in sorted({low, max(low, high - SAMPLED_RECORDS)}):
            reader.assign([TopicPartition(topic, partition, start)])
            for message in reader.consume(SAMPLED_RECORDS, END_SECONDS) if high > low else ():
                value, error = message.value(), message.error()
                if error is not None and not is_end(error):
                    raise KafkaException(error)
                if error is None and value is not None:
                    yield value
    reader.unassign()


def wrong(kafka: KafkaSettings, ids: Iterable[TopicSchema]) -> list[TopicSchema]:
    """Those whose id is unknown to the registry, or of another schema."""
    registry = Registry(kafka)

    def is_right(one: TopicSchema) -> bool:
        try:
            return bool(_meaning(registry.schema(one.schema_id)) == _meaning(one.schema))
        except Undecodable:
            return False

    return [one for one in ids if not is_right(one)]


def _meaning(schema: Any) -> Any:
    """The schema with full names: a registry may omit an inherited namespace."""
    text = json.dumps(fastavro.parse_schema(schema))
    return json.loads(
        text, object_hook=lambda fields: {k: v for k, v in fields.items() if not k.startswith("__")}
    )


def put_back(kafka: KafkaSettings, lost: Iterable[TopicSchema]) -> None:
    """Put schemas back under their ids, which must be free. Raises what the registry's client raises."""
    # The exact text that our processes register, or it would be another schema.
    schemas: dict[str, list[tuple[int, str]]] = {}
    for one in lost:
        schemas.setdefault(one.subject, []).append((one.schema_id, json.dumps(one.schema)))
    Registry(kafka).put_back(schemas)
