"""Generations: one complete computation of a pipeline each, with topics, groups and result rows of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaException
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.dialects.postgresql import insert

from contracts.schemas import load as load_schema
from contracts.settings import KafkaSettings
from contracts.tables import LIVE as LIVE
from contracts.tables import active_generations, generations
from contracts.topics import GenerationTopics, Topic
from kafka_client import clients as connect
from kafka_client import topic_settings
from kafka_client.errors import Fatal
from kafka_client.offsets import beginnings, ends
from kafka_client.registry import Registry
from observability import logs
from observability.waits import WAITS, Cancelled
from streaming.engine.pipeline import Parameters, Pipeline
from streaming.generations.schema_ids import keep_inputs

# Between two requests to a broker that does not answer, each of which had its own timeout.
AGAIN_SECONDS = 1.0

_log = logs.get(__name__)


@dataclass(frozen=True)
class TopicIdentity:
    """Id and partition count: a re-created topic has another id, a resized one another count."""

    id: str
    partitions: int


@dataclass(frozen=True)
class Generation:
    """A row of `generations`: what a worker needs to run it."""

    pipeline: str
    number: int
    version: int
    state: str
    parameters: Parameters
    topics: Mapping[str, TopicIdentity]
    start_offsets: Mapping[int, int]
    # Of one that was built by a replay: where its slices ended.
    target_offsets: Mapping[int, int] = field(default_factory=dict)

    @property
    def names(self) -> GenerationTopics:
        return GenerationTopics(self.pipeline, self.number)

    def first_input(self, pipeline: Pipeline, number: int) -> int:
        """The number of an input's partition 0: the partitions of all inputs are numbered through, in their order."""
        return sum(self.topics[each.source.name].partitions for each in pipeline.inputs[:number])

    def __str__(self) -> str:
        return f"{self.pipeline}.g{self.number}"


def create(
    kafka: KafkaSettings,
    results: Engine,
    pipeline: Pipeline,
    parameters: Parameters,
    *,
    reason: str,
    created_by: str,
) -> Generation:
    """Create the pipeline's first generation as the active one; returns the active or newest one if it has any.

    Topics and schemas come first, row and pointer last in one transaction: the next call completes what a crash left,
    and no worker runs an incomplete generation.
    """
    if (existing := load_newest(results, pipeline.name)) is not None:
        return existing
    number, topics, starts = lay_out(kafka, pipeline, after=0)
    keep_inputs(kafka, results, pipeline)
    row = {
        "pipeline": pipeline.name,
        "number": number,
        "version": pipeline.version,
        "state": "active",
        "parameters": parameters.to_json(),
        "zone_rules": parameters.windows.zone.to_json(),
        "topics": topics,
        "start_offsets": starts,
        "reason": reason,
        "created_by": created_by,
        "created_at": datetime.now(UTC),
    }
    with results.begin() as connection:
        _insert(connection, row)
    created = load_newest(results, pipeline.name)
    assert created is not None
    return created


def lay_out(
    kafka: KafkaSettings, pipeline: Pipeline, *, after: int
) -> tuple[int, dict[str, dict[str, Any]], dict[str, int]]:
    """Create the topics and register the schemas of a new generation; empty topics that a crash left are reused.

    Returns its number, the first after `after` of which Kafka has no records; the topics as the table has them, the
    logs included; and where the logs begin: at 0. Raises Fatal for a log of which records are gone.
    """
    number = _unused(kafka, pipeline.name, after)
    names = GenerationTopics(pipeline.name, number)
    sources = [each.source for each in pipeline.inputs]
    connect.ensure_topics(kafka, [*sources, *names.all])
    check_kept(kafka, [*sources, *names.all], whole=[*sources, *names.all])
    registry = Registry(kafka)
    registry.register(names.partials.subject, pipeline.partial_schema())
    registry.register(names.state.subject, pipeline.state_schema())
    registry.register(names.progress.subject, load_schema(names.progress.schema))
    described = connect.describe_topics(kafka, [topic.name for topic in (*sources, *names.all)])
    topics = {name: {"id": topic_id, "partitions": count} for name, (topic_id, count) in described.items()}
    return (
        number,
        topics,
        _start_offsets(kafka, {source.name: described[source.name][1] for source in sources}),
    )


def check_kept(
    kafka: KafkaSettings,
    topics: Sequence[Topic],
    *,
    whole: Sequence[Topic],
    stop: threading.Event | None = None,
) -> None:
    """Raise Fatal if a topic is not kept as it has to be, or records of a `whole` one are gone.

    Waits while Kafka does not answer, until `stop`, which raises Cancelled; raises KafkaException without it.
    """
    reporter = f"topics {threading.get_ident()}"
    while True:
        try:
            topic_settings.check(kafka, topics, whole=whole)
            break
        except topic_settings.NotKept as error:
            WAITS.end("kafka", reporter)
            raise Fatal(str(error)) from error
        except KafkaException as error:
            reason = error.args[0].str()
            if connect.is_forbidden(error.args[0]):
                WAITS.end("kafka", reporter)
                raise Fatal(
                    f"Kafka refuses ({reason}): give the Kafka user of this process the rights to Describe "
                    "and DescribeConfigs its topics (`python -m contracts acls` lists them), and start again"
                ) from error
            if stop is None:
                raise
            _log.warning("topics are checked again", reason=reason)
            WAITS.begin("kafka", f"Kafka does not return the settings of topics: {reason}", reporter)
        if stop.wait(AGAIN_SECONDS):
            WAITS.end("kafka", reporter)
            raise Cancelled
    WAITS.end("kafka", reporter)


def load(results: Engine, pipeline: str, number: int) -> Generation:
    """The generation as it is now. Raises Fatal if there is none."""
    wanted = select(generations).where(generations.c.pipeline == pipeline, generations.c.number == number)
    with results.connect() as connection:
        row = connection.execute(wanted).mappings().one_or_none()
    if row is None:
        raise Fatal(f"{pipeline} has no generation {number}")
    return _from_row(row)


def with_rules(results: Engine, generation: Generation) -> Generation:
    """The generation with the rules of its time zone; logs a warning if this machine has newer ones.

    A generation without stored rules gets those of the first machine that runs it.
    """
    of, known = generations.c, generation.parameters
    if known.rules is None:
        with results.begin() as connection:
            connection.execute(
                update(generations)
                .where(
                    of.pipeline == generation.pipeline,
                    of.number == generation.number,
                    of.zone_rules.is_(None),
                )
                .values(zone_rules=known.windows.zone.to_json())
            )
        generation = load(results, generation.pipeline, generation.number)
    if generation.parameters.is_outdated:
        zone = known.time_zone
        _log.warning(
            f"the rules of {zone} changed since this generation was created, and it goes on with its own: a replay "
            f"takes over the new ones, `electrored replay {generation.pipeline} --time-zone {zone} --reason ...`",
            generation=str(generation),
        )
    return generation


def load_newest(results: Engine, pipeline: str) -> Generation | None:
    """The active generation, or the newest if none is; None if the pipeline never had any."""
    wanted = (
        select(generations)
        .where(generations.c.pipeline == pipeline)
        .order_by((generations.c.state == "active").desc(), generations.c.number.desc())
        .limit(1)
    )
    with results.connect() as connection:
        row = connection.execute(wanted).mappings().one_or_none()
    return None if row is None else _from_row(row)


def load_live(results: Engine, pipeline: str) -> list[Generation]:
    """Every generation of the pipeline that workers have to run, in order of their numbers."""
    wanted = (
        select(generations)
        .where(generations.c.pipeline == pipeline, generations.c.state.in_(LIVE))
        .order_by(generations.c.number)
    )
    with results.connect() as connection:
        return [_from_row(row) for row in connection.execute(wanted).mappings()]


def _insert(connection: Connection, row: Mapping[str, Any]) -> None:
    # Two at once is no error: the one that inserted the pointer wins.
    pointed = connection.execute(
        insert(active_generations)
        .values(pipeline=row["pipeline"], generation=row["number"], promotion_number=1)
        .on_conflict_do_nothing()
    )
    if pointed.rowcount:
        connection.execute(insert(generations).values(**row, promoted_at=row["created_at"]))


def _unused(kafka: KafkaSettings, pipeline: str, after: int) -> int:
    """The first number whose topics are not there, or were never written to.

    A results database that was restored to an earlier time, or is new, may lack generations of which Kafka has
    progress, from which a generation of the same number would resume.
    """
    client = connect.admin(kafka)
    known = client.list_topics(timeout=connect.TIMEOUT_SECONDS).topics
    number = after + 1
    while used := [
        topic.name
        for topic in GenerationTopics(pipeline, number).all
        if topic.name in known and any(ends(client, topic.name, known[topic.name].partitions).values())
    ]:
        _log.warning(
            "a generation's number is skipped: Kafka has records of it, the database has not", topics=used
        )
        number += 1
    return number


def _start_offsets(kafka: KafkaSettings, partitions: Mapping[str, int]) -> dict[str, int]:
    """The beginnings of the logs now; the partitions of all are numbered through."""
    offsets: list[int] = []
    for topic, count in partitions.items():
        starts = beginnings(connect.admin(kafka), topic, range(count))
        offsets += [starts[partition] for partition in range(count)]
    return {str(number): offset for number, offset in enumerate(offsets)}


def _from_row(row: Mapping[Any, Any]) -> Generation:
    return Generation(
        pipeline=row["pipeline"],
        number=row["number"],
        version=row["version"],
        state=row["state"],
        parameters=Parameters.from_json(row["parameters"], row["zone_rules"]),
        topics={
            name: TopicIdentity(topic["id"], topic["partitions"]) for name, topic in row["topics"].items()
        },
        start_offsets=_numbered(row["start_offsets"]),
        target_offsets=_numbered(row["target_offsets"] or {}),
    )


def _numbered(offsets: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): offset for partition, offset in offsets.items()}
