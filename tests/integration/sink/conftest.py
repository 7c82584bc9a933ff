"""Generations made by hand: a real state topic that a test writes totals to, as merge would."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException, Producer
from sqlalchemy import Engine, create_engine, insert, text
from tenacity import Retrying, retry_if_exception_type, stop_after_delay

from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.tables import active_generations, generations
from contracts.topics import GenerationTopics
from kafka_client import latency_header
from kafka_client.clients import admin, describe_topics, ensure_topics, transactional_producer
from kafka_client.registry import Codec, Registry
from lineage.emitter import NullEmitter
from lineage.model import Job
from observability.progress_report import ProgressReport
from stack.embedded import Embedded
from streaming.engine.pipeline import Pipeline
from streaming.engine.windows import to_micros
from streaming.pipelines import PIPELINES
from streaming.pipelines.top_sales_by_city import V1
from streaming.sink.targets import SinkTarget

DAY = datetime(2026, 11, 22, tzinfo=UTC)


class Heard(NullEmitter):
    """What a process's runs say of themselves whenever they are asked, by job."""

    def __init__(self) -> None:
        self._asked: list[tuple[Callable[[], Job], Callable[[], ProgressReport]]] = []

    def told(
        self, job: Callable[[], Job], facts: Callable[[], ProgressReport] = ProgressReport, **_: Any
    ) -> AbstractContextManager[None]:
        self._asked.append((job, facts))
        return nullcontext()

    def of(self, name: str) -> ProgressReport:
        (facts,) = (facts for job, facts in self._asked if job().name == name)
        return facts()


@dataclass
class HandMade:
    """One generation: `write` is a commit of merge."""

    followed: SinkTarget
    codec: Codec
    producer: Producer
    engine: Engine

    @property
    def topic(self) -> str:
        return self.followed.topic

    def total(self, city: str, total: str, count: int = 1, late: int = 0, **more: Any) -> dict[str, Any]:
        return {
            "window_start": DAY,
            "window_end": DAY + timedelta(days=1),
            "country": "DE",
            "city": city,
            "currency": "EUR",
            "total": Decimal(total),
            "sales_count": count,
            "late_count": late,
            "late_amount": Decimal(late),
            "restated_at": DAY + timedelta(days=2) if late else None,
        } | more

    def write(
        self,
        totals: Sequence[dict[str, Any]] = (),
        watermark: datetime | None = None,
        commit: bool = True,
        oldest: datetime | None = None,
    ) -> None:
        """Totals to the partitions of their groups, the watermark to every partition, in one transaction.

        `oldest` is when the oldest event that the totals count was committed at its source; the last one says so.
        """
        partitions = self.followed.partitions
        self.producer.begin_transaction()
        for number, total in enumerate(totals, start=1):
            key = f"{total['window_start']:%Y-%m-%dT%H:%M:%SZ}|{total['country']}|{total['city']}|{total['currency']}"
            self.producer.produce(
                self.topic,
                self.codec.encode(("electrored.Total", total)),
                key.encode(),
                partition=zlib.crc32(key.encode()) % partitions,
                headers=latency_header.headers(to_micros(oldest))
                if oldest and number == len(totals)
                else None,
            )
        for partition in range(partitions) if watermark else ():
            value = self.codec.encode(("electrored.Watermark", {"watermark": watermark}))
            self.producer.produce(self.topic, value, b"watermark", partition=partition)
        if commit:
            self.producer.commit_transaction()

    def rows(self) -> dict[str, tuple[Decimal, int]]:
        """Of the results database: total and count by city."""
        with self.engine.connect() as connection:
            found = connection.execute(
                text("SELECT city, total, sales_count FROM city_totals WHERE generation = :number"),
                {"number": self.followed.number},
            )
            return {city: (total, count) for city, total, count in found}

    def apply_number(self) -> int:
        with self.engine.connect() as connection:
            number: int = connection.scalar(
                text("SELECT apply_number FROM generations WHERE pipeline = :pipeline AND number = :number"),
                {"pipeline": self.followed.pipeline.name, "number": self.followed.number},
            )
            return number

    def recreate_topic(self, kafka: KafkaSettings) -> None:
        client = admin(kafka)
        client.delete_topics([self.topic])[self.topic].result()
        topic = GenerationTopics(self.followed.pipeline.name, self.followed.number).state
        # Deleting is asynchronous: until the old one is gone, creating says that it exists.
        for attempt in Retrying(
            retry=retry_if_exception_type((KafkaException, AssertionError)),
            stop=stop_after_delay(60),
            reraise=True,
        ):
            with attempt:
                ensure_topics(kafka, [replace(topic, partitions=self.followed.partitions)])
                assert describe_topics(kafka, [self.topic])[self.topic][0] != self.followed.topic_id


@pytest.fixture
def engine(results_db: ResultsDbSettings) -> Iterator[Engine]:
    engine = create_engine(results_db.results_db_url.get_secret_value())
    yield engine
    engine.dispose()


@pytest.fixture
def pipeline(stack: Embedded, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The city pipeline under a name of its own, so that its topics are its own."""
    name = f"city-{uuid4().hex[:8]}"
    output = replace(V1.output, name=f"public-{name}")
    own = replace(V1, name=name, output=output)
    monkeypatch.setitem(PIPELINES, (name, 1), own)
    ensure_topics(stack.kafka, [output])
    return own


Make = Callable[..., HandMade]


@pytest.fixture
def make(stack: Embedded, engine: Engine, pipeline: Pipeline) -> Make:
    """Make generation `number` of the pipeline: topic, schema, row in `generations`."""
    registry = Registry(stack.kafka)

    def made(number: int = 1, state: str = "active", partitions: int = 2) -> HandMade:
        topic = replace(GenerationTopics(pipeline.name, number).state, partitions=partitions)
        ensure_topics(stack.kafka, [topic])
        topic_id, _ = describe_topics(stack.kafka, [topic.name])[topic.name]
        with engine.begin() as connection:
            connection.execute(
                insert(generations).values(
                    pipeline=pipeline.name,
                    number=number,
                    version=1,
                    state=state,
                    parameters={"time_zone": "UTC", "grace_seconds": 3600, "calendar": "1-day"},
                    topics={topic.name: {"id": topic_id, "partitions": partitions}},
                    start_offsets={},
                    reason="a test",
                    created_by="a test",
                    created_at=DAY,
                )
            )
        producer = transactional_producer(stack.kafka, f"{topic.name}.test")
        producer.init_transactions()
        codec = registry.codec(topic.subject, pipeline.state_schema())
        return HandMade(
            SinkTarget(pipeline, number, topic.name, topic_id, partitions), codec, producer, engine
        )

    return made


@pytest.fixture
def promote(engine: Engine, pipeline: Pipeline) -> Callable[[int], None]:
    """Move the pointer to a generation, as a promotion does."""

    def promoted(number: int) -> None:
        with engine.begin() as connection:
            connection.execute(
                text(
                    f"INSERT INTO {active_generations.name} VALUES (:pipeline, :number, 1) ON CONFLICT (pipeline) "
                    "DO UPDATE SET generation = :number, promotion_number = active_generations.promotion_number + 1"
                ),
                {"pipeline": pipeline.name, "number": number},
            )

    return promoted
