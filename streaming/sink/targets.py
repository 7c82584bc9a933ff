"""The live generations of the results database, as targets of sink and publisher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import Connection, select

from contracts.tables import active_generations, generations
from contracts.topics import GenerationTopics
from kafka_client.errors import Fatal
from streaming.engine.pipeline import Pipeline
from streaming.generations.catalog import LIVE
from streaming.pipelines import PIPELINES


@dataclass(frozen=True)
class SinkTarget:
    """A generation as seen from its state topic: the pipeline's value, and the topic as it was created."""

    # The topic names it already, and a pipeline is no key of a dict.
    pipeline: Pipeline = field(compare=False)
    number: int
    topic: str
    topic_id: str
    partitions: int

    def __str__(self) -> str:
        return f"{self.pipeline.name} generation {self.number}"


@dataclass(frozen=True)
class GenerationRow:
    """A row of `generations`, of which this code may not have the version."""

    name: str
    number: int
    version: int
    topic: str
    topic_id: str
    partitions: int

    @classmethod
    def of(cls, name: str, number: int, version: int, topics: Mapping[str, Mapping[str, object]]) -> Self:
        topic = GenerationTopics(name, number).state.name
        created = topics[topic]
        return cls(name, number, version, topic, str(created["id"]), int(str(created["partitions"])))

    def target(self) -> SinkTarget:
        """The target of the row. Raises Fatal if this code does not have the version."""
        pipeline = PIPELINES.get((self.name, self.version))
        if pipeline is None:
            raise Fatal(f"{self} needs version {self.version}, which this code does not have")
        return SinkTarget(pipeline, self.number, self.topic, self.topic_id, self.partitions)

    def __str__(self) -> str:
        return f"{self.name} generation {self.number}"


def live(connection: Connection) -> set[GenerationRow]:
    """Every generation whose rows are kept up to date."""
    rows = connection.execute(
        select(
            generations.c.pipeline, generations.c.number, generations.c.version, generations.c.topics
        ).where(generations.c.state.in_(LIVE))
    )
    return {GenerationRow.of(*row) for row in rows}


def active(connection: Connection) -> dict[str, SinkTarget]:
    """By pipeline, the generation of the pointer, which the public topic reflects."""
    rows = connection.execute(
        select(
            generations.c.pipeline,
            generations.c.number,
            generations.c.version,
            generations.c.topics,
        ).join_from(
            active_generations,
            generations,
            (generations.c.pipeline == active_generations.c.pipeline)
            & (generations.c.number == active_generations.c.generation),
        )
    )
    return {row.pipeline: GenerationRow.of(*row).target() for row in rows}
