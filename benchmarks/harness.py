"""Topics of a measurement, and the events that are in them before it begins."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import uuid4

from confluent_kafka import Producer

from contracts.schemas import load
from contracts.settings import KafkaSettings, LogSettings
from contracts.topics import (
    DEAD_LETTERS,
    LATE_EVENTS,
    SALES_PARTITIONS,
    SOURCE_POSITIONS,
    GenerationTopics,
    Topic,
)
from kafka_client import clients as connect
from kafka_client.registry import Registry
from observability import logs
from streaming.engine.pipeline import Parameters, Pipeline
from streaming.generations.catalog import Generation, TopicIdentity
from streaming.pipelines import CURRENT, PIPELINES

# As many as make librdkafka's batches full; a bigger transaction changes nothing.
PRELOAD_TRANSACTION = 20_000
DAYS = 30
# A log is nearly in order of time: shops report at once, a few later.
DISORDER_SECONDS = 6 * 3600
# Half of the sales each, so that two processes encode them, which is what takes the time.
SOURCES = ("history-1", "history-2")


@dataclass(frozen=True)
class Harness:
    """Topics of one measurement."""

    kafka: KafkaSettings
    pipeline: Pipeline
    suffix: str

    @property
    def source(self) -> Topic:
        """The log of sales."""
        return self.pipeline.inputs[0].source

    @property
    def sources(self) -> list[Topic]:
        """All logs."""
        return [each.source for each in self.pipeline.inputs]

    @classmethod
    def make(cls, kafka: KafkaSettings, name: str, partitions: int = SALES_PARTITIONS) -> Harness:
        suffix = uuid4().hex[:8]
        template = PIPELINES[name, CURRENT[name]]
        sources = [
            replace(each.source, name=f"{each.source.name}-{suffix}", partitions=partitions)
            for each in template.inputs
        ]
        pipeline = replace(template.over(*sources), name=f"{name}-{suffix}")
        harness = cls(kafka, pipeline, suffix)
        connect.ensure_topics(
            kafka, [*sources, *GenerationTopics(pipeline.name, 1).all, *harness.side_topics.values()]
        )
        return harness

    def read_by(self, name: str) -> Harness:
        """The same logs, to be read from their beginning: a pipeline with topics and groups that none has used yet."""
        there = {each.schema: each for each in self.sources}
        template = PIPELINES[name, CURRENT[name]]
        sources = [there[each.source.schema] for each in template.inputs]
        pipeline = replace(template.over(*sources), name=f"{name}-{uuid4().hex[:8]}")
        connect.ensure_topics(self.kafka, GenerationTopics(pipeline.name, 1).all)
        return replace(self, pipeline=pipeline)

    @property
    def side_topics(self) -> dict[str, Any]:
        sides = {"positions": SOURCE_POSITIONS, "late": LATE_EVENTS, "dead": DEAD_LETTERS}
        return {role: replace(topic, name=f"{topic.name}-{self.suffix}") for role, topic in sides.items()}

    def generation(self) -> Generation:
        names = [*self.sources, *GenerationTopics(self.pipeline.name, 1).all]
        identities = connect.describe_topics(self.kafka, [topic.name for topic in names])
        return Generation(
            pipeline=self.pipeline.name,
            number=1,
            version=self.pipeline.version,
            state="active",
            parameters=Parameters("UTC", timedelta(hours=1), self.pipeline.calendar or "1-day"),
            topics={name: TopicIdentity(*identity) for name, identity in identities.items()},
            start_offsets=dict.fromkeys(range(sum(each.partitions for each in self.sources)), 0),
        )


def preload(harness: Harness, events: int, *, first: int = 0, sale_ids: int | None = None) -> None:
    """Sales of a month in 200 cities, each its own record, in order of time give or take some hours.

    Those before `first` are there already. `sale_ids`: how many distinct ones, which bounds what a join keeps; as many
    as events if left out.
    """
    with ThreadPoolExecutor(len(SOURCES)) as threads:
        halves = [
            threads.submit(in_child, _preload_half, harness, events // 2, source, first // 2, sale_ids)
            for source in SOURCES
        ]
        for half in halves:
            half.result()


def _preload_half(harness: Harness, events: int, source: str, first: int, sale_ids: int | None) -> None:
    codec = Registry(harness.kafka).codec(harness.source.subject, load(harness.source.schema))
    producer: Producer = connect.transactional_producer(harness.kafka, f"preload-{harness.suffix}-{source}")
    producer.init_transactions(30)
    chance = Random(1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for begin in range(first, events, PRELOAD_TRANSACTION):
        values = []
        for seq in range(begin, min(begin + PRELOAD_TRANSACTION, events)):
            sold_at = start + timedelta(days=DAYS * seq / events, seconds=chance.randrange(DISORDER_SECONDS))
            city = chance.randrange(200)
            sale_id = _sale_id(source, seq % (sale_ids or events))
            event = {
                "source": source,
                "seq": seq,
                "sale_id": sale_id,
                "operation": "SALE",
                "sold_at": sold_at,
                "recorded_at": sold_at,
                "city": f"City {city}",
                "country": ("DE", "FR", "US", "JP")[city % 4],
                "salesman_id": f"s{chance.randrange(400)}",
                "salesman_name": "Alex Smith",
                "product": "product",
                "quantity": 1,
                "amount": Decimal(chance.randrange(10**7)).scaleb(-4),
                "currency": "EUR",
            }
            values.append((sale_id.encode(), codec.encode(event)))
        # Encoded before it begins: a transaction that lasts for seconds runs out of time on a busy machine.
        producer.begin_transaction()
        for key, value in values:
            producer.produce(harness.source.name, value, key)
        producer.commit_transaction(60)


def preload_payments(harness: Harness, count: int) -> None:
    """A payment for each of so many sales that are in the log, in another order."""
    in_child(_preload_payments, harness, count)


def _preload_payments(harness: Harness, count: int) -> None:
    topic = harness.sources[1]
    codec = Registry(harness.kafka).codec(topic.subject, load(topic.schema))
    producer: Producer = connect.transactional_producer(harness.kafka, f"payments-{harness.suffix}")
    producer.init_transactions(30)
    chance = Random(2)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    sales = [_sale_id(source, number) for source in SOURCES for number in range(count // 2)]
    chance.shuffle(sales)
    for first in range(0, len(sales), PRELOAD_TRANSACTION):
        values = []
        for seq, sale_id in enumerate(sales[first : first + PRELOAD_TRANSACTION], first):
            at = start + timedelta(seconds=seq)
            payment = {
                "source": "soap",
                "seq": seq,
                "payment_id": f"p{seq:012d}",
                "sale_id": sale_id,
                "amount": Decimal(chance.randrange(10**7)).scaleb(-4),
                "currency": "EUR",
                "status": "CONFIRMED",
                "confirmed_at": at,
                "recorded_at": at,
            }
            values.append((sale_id.encode(), codec.encode(payment)))
        producer.begin_transaction()
        for key, value in values:
            producer.produce(topic.name, value, key)
        producer.commit_transaction(60)


def _sale_id(source: str, number: int) -> str:
    return f"{source[-1]}{number:011d}"


def in_child(function: Any, *arguments: Any) -> Any:
    """The function's result, from a process that did nothing else."""
    context = multiprocessing.get_context("spawn")
    # Stdout is for the figures.
    quiet = ("benchmark", LogSettings(log_level="WARNING"))
    with context.Pool(1, initializer=logs.configure, initargs=quiet) as pool:
        return pool.apply(function, arguments)
