"""Generations made by hand: a real state topic that a test writes totals to, as merge would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, insert, text

from contracts.settings import ResultsDbSettings
from contracts.tables import active_generations, generations
from contracts.topics import GenerationTopics
from kafka_client.clients import describe_topics, ensure_topics, transactional_producer
from kafka_client.registry import Registry
from stack.embedded import Embedded
from streaming.engine.pipeline import Pipeline
from streaming.pipelines import PIPELINES
from streaming.pipelines.top_sales_by_city import V1
from streaming.sink.targets import SinkTarget
from tests.support.sink import DAY, GenerationFixture, Make, Public


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


@pytest.fixture
def make(stack: Embedded, engine: Engine, pipeline: Pipeline) -> Make:
    """Make generation `number` of the pipeline: topic, schema, row in `generations`."""
    registry = Registry(stack.kafka)

    def made(number: int = 1, state: str = "active", partitions: int = 2) -> GenerationFixture:
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
        return GenerationFixture(
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


@pytest.fixture
def public(stack: Embedded, pipeline: Pipeline) -> Iterator[Public]:
    reader = Public(stack, pipeline)
    yield reader
    reader.close()
