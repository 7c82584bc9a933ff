"""Produce values in one transaction, and read the committed records of a topic."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client import clients, offsets
from kafka_client.registry import Codec, Registry

PATIENCE_SECONDS = 60.0
# A marker takes milliseconds; a test that leaves a transaction open waits for this.
OPEN_SECONDS = 2.0


def committed_records(settings: KafkaSettings, topic: Topic) -> list[tuple[bytes, Any]]:
    """Keys and records, partition by partition, without deletions."""
    codec = topic_codec(settings, topic)
    values = committed_values(settings, topic)
    return [(key, codec.decode(value)) for key, value in values if value is not None]


def topic_codec(settings: KafkaSettings, topic: Topic) -> Codec:
    """Encoder and decoder of the topic's records."""
    registry = _registry(settings.kafka_bootstrap, settings.schema_registry_url)
    return registry.codec(topic.subject, load(topic.schema))


def committed_values(settings: KafkaSettings, topic: Topic) -> list[tuple[bytes, bytes | None]]:
    """Keys and values, partition by partition."""
    with _READING, _reader(settings) as (consumer, admin):
        return list(_below_the_ends(consumer, admin, topic))


@contextmanager
def shared_reader(settings: KafkaSettings) -> Iterator[None]:
    """One reader for all that is read of this Kafka until the block ends: conditions are read many times a second."""
    with closing(_consumer(settings)) as consumer:
        _READERS[settings.kafka_bootstrap] = consumer, clients.admin(settings)
        yield
        del _READERS[settings.kafka_bootstrap]


_READERS: dict[str, tuple[Consumer, AdminClient]] = {}
_READING = threading.Lock()


@contextmanager
def _reader(settings: KafkaSettings) -> Iterator[tuple[Consumer, AdminClient]]:
    if (shared := _READERS.get(settings.kafka_bootstrap)) is None:
        with closing(_consumer(settings)) as consumer:
            yield consumer, clients.admin(settings)
    else:
        try:
            yield shared
        finally:
            shared[0].unassign()


def _consumer(settings: KafkaSettings) -> Consumer:
    return clients.consumer(settings, "test", subscribed=False, overrides={"fetch.wait.max.ms": 20})


@cache
def _registry(bootstrap: str, url: str) -> Registry:
    """Shared: a new one registers every schema and loads the system's certificates again."""
    return Registry(KafkaSettings(kafka_bootstrap=bootstrap, schema_registry_url=url))


def _below_the_ends(
    consumer: Consumer, admin: AdminClient, topic: Topic
) -> Iterator[tuple[bytes, bytes | None]]:
    """What is committed below the ends of all partitions as they are now, in the order of each.

    The markers of a commit reach its partitions at different times, so a transaction is waited for that seems open.
    """
    partitions = range(topic.partitions)
    starts = offsets.beginnings(admin, topic.name, partitions)
    missing = {
        number: end
        for number, end in offsets.ends(admin, topic.name, partitions).items()
        if end > starts[number]
    }
    consumer.assign([TopicPartition(topic.name, number, starts[number]) for number in missing])
    moved_at, committed = time.monotonic(), set[int]()
    while missing:
        message, idle = consumer.poll(0.1), time.monotonic() - moved_at
        if message is None:
            assert idle < PATIENCE_SECONDS, f"{topic.name} stands still below {missing}"
            if committed >= missing.keys() and idle > OPEN_SECONDS:
                return
            continue
        moved_at = time.monotonic()
        number, end = message.partition() or 0, message.offset() or 0
        if message.error() is None:
            end += 1
            committed.discard(number)
            yield message.key() or b"", message.value()
        else:
            # The end of what is committed, as far as this partition shows.
            committed.add(number)
        if end >= missing.get(number, end + 1):
            del missing[number]


def produce(
    kafka: KafkaSettings,
    topic: Topic,
    values: list[bytes],
    *,
    commit: bool = True,
    prefix: str = "",
    partition: int = 0,
) -> None:
    """The values in one transaction to one partition; their keys are their numbers."""
    producer = clients.transactional_producer(kafka, f"test-{random.random()}")
    producer.init_transactions(60)
    producer.begin_transaction()
    for number, value in enumerate(values):
        producer.produce(topic.name, key=f"{prefix}{number}".encode(), value=value, partition=partition)
    producer.flush(60)
    if commit:
        producer.commit_transaction(60)
    else:
        producer.abort_transaction(60)
