"""Status of the platform at one time: end offsets, committed offsets, positions of sources, results.

Reading it costs a handful of requests and changes nothing: no group is joined, no offset committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine, Row, text

from contracts.datasets import PIPELINES, combine_groups
from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import (
    ENRICHED_SALES,
    PAYMENT_CONFIRMATIONS,
    PUBLIC,
    SALES_EVENTS,
    SOURCE_POSITIONS,
    TOP_SALES_BY_CITY,
    TOP_SALESMAN_BY_COUNTRY,
    GenerationTopics,
    Topic,
)
from contracts.zones import fingerprint_here
from kafka_client.clients import admin, committed_offsets, consumer
from kafka_client.offsets import LATEST, listed
from kafka_client.reader import Reader
from kafka_client.registry import Registry
from kafka_client.writer_schemas import Undecodable

# Above it a request is a failure; Dagster gives a sensor 60 s.
TIMEOUT_SECONDS = 10.0
# Tolerated clock skew of a till; a sale that is dated later than that is dated wrong.
CLOCKS_AHEAD = timedelta(hours=1)


@dataclass(frozen=True)
class SourcePosition:
    """Position of a source: its next seq, and the time up to which all that was recorded is in the log."""

    next_seq: int
    frontier: datetime | None
    detail: str


@dataclass(frozen=True)
class PipelineStatus:
    """The active generation of a pipeline. `lags` are offsets, which count transaction markers too.

    Nothing in it is counted from the rows: its cost does not depend on their number.
    """

    generation: int
    promotion_number: int
    apply_number: int
    watermark: datetime | None
    # By step, topic and partition.
    lags: Mapping[tuple[str, str, int], int] = field(default_factory=dict)
    # By log: events that were dropped as duplicates since the generation began.
    duplicates: Mapping[str, int] = field(default_factory=dict)
    # Whether this machine's rules of its time zone differ from those that it was created with.
    is_outdated: bool = False

    def behind(self, step: str) -> int:
        """The lag of a step over all that it reads."""
        return sum(behind for (name, _, _), behind in self.lags.items() if name == step)


@dataclass(frozen=True)
class Findings:
    """Rows that there should be none of: how many, and the first of them."""

    count: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlatformStatus:
    """By name: the end of every topic (sum over partitions), each source, each pipeline with a generation."""

    topics: dict[str, int]
    sources: dict[str, SourcePosition]
    pipelines: dict[str, PipelineStatus]
    overlap: Findings
    future: Findings = Findings()
    # By pipeline; not read by `read_status`, which must not wait for a lock on the totals.
    negative: Mapping[str, Findings] = field(default_factory=dict)


def read_status(settings: KafkaSettings, results: Engine, *, positions: bool = True) -> PlatformStatus:
    """Read the status; source positions and duplicates only with `positions`.

    Committed offsets are read before the end offsets, so no lag is negative. Raises KafkaException or SQLAlchemyError
    if one of the two does not answer.
    """
    client = admin(settings)
    stored = active_generations(results)
    topics = {name: GenerationTopics(name, rows[0].generation) for name, rows in stored.items()}
    consumed = {name: _consumed(settings, topics[name], rows) for name, rows in stored.items()}
    sources = _source_positions(settings) if positions else {}
    ends = _ends(client, (*PUBLIC, *(topic for names in topics.values() for topic in names.all)))
    pipelines = {
        name: PipelineStatus(
            generation=row.generation,
            promotion_number=row.promotion_number,
            apply_number=row.apply_number,
            watermark=row.watermark,
            lags={
                (step, *place): max(0, ends[place] - offset)
                for (step, place), offset in consumed[name].items()
                if place in ends
            },
            duplicates=_duplicates(settings, topics[name].progress) if positions else {},
            is_outdated=row.rules not in (None, fingerprint_here(row.time_zone)),
        )
        for name, (row, *_) in stored.items()
    }
    sums = Counter[str]()
    for (topic, _), end in ends.items():
        sums[topic] += end
    return PlatformStatus(dict(sums), sources, pipelines, overlap(results), future(results))


# One statement, so of one snapshot. Rules are long: their SHA-256 is read. Without a watermark or a sink position yet,
# the time of promotion counts, so that a stuck one raises the alert.
_ACTIVE = text(
    "SELECT f.pipeline, f.generation, f.promotion_number, f.apply_number, f.watermark, f.time_zone, "
    "encode(sha256(convert_to(g.zone_rules, 'UTF8')), 'hex') AS rules, p.\"partition\", p.next_offset, "
    "coalesce(p.watermark, g.promoted_at, g.created_at) AS complete_to FROM active_freshness AS f "
    "JOIN generations AS g ON g.pipeline = f.pipeline AND g.number = f.generation "
    "LEFT JOIN sink_positions AS p ON p.pipeline = f.pipeline AND p.generation = f.generation"
)


def active_generations(results: Engine) -> dict[str, list[Row[Any]]]:
    """By pipeline that has one: a row for each partition that the sink has a position in, or one without."""
    with results.connect() as connection:
        rows = connection.execute(_ACTIVE).all()
    by_pipeline = {name: [row for row in rows if row.pipeline == name] for name in PIPELINES}
    return {name: own for name, own in by_pipeline.items() if own}


def overlap(results: Engine) -> Findings:
    """Sale ids that count in more than one source, as far as the join has read: no payment is joined to them.

    Its cost grows with their number.
    """
    # A colon would begin a parameter.
    return _findings(
        results,
        r"SELECT count(DISTINCT sale_id), (array_agg(DISTINCT sale_id ORDER BY sale_id))[1\:10] "
        "FROM enriched_sales WHERE ambiguous",
    )


# By pipeline: the table of its groups, and the columns that identify one.
_GROUPS = {
    TOP_SALES_BY_CITY.name: ("city_totals", "t.window_start, t.country, t.city, t.currency"),
    TOP_SALESMAN_BY_COUNTRY.name: (
        "salesman_totals",
        "t.window_start, t.country, t.salesman_id, t.currency",
    ),
    ENRICHED_SALES.name: ("joined_sales", "t.source, t.sale_id"),
}


def negative_groups(results: Engine) -> dict[str, Findings]:
    """By pipeline: groups of its active generation that more sales were taken back from than were counted.

    By a partial index: its cost grows with their number.
    """
    return {
        pipeline: _findings(
            results,
            f"SELECT count(*), (array_agg(concat_ws(' ', {ids}) ORDER BY {ids}))[1\\:10] FROM {table} t "
            "JOIN active_generations a ON a.generation = t.generation "
            "WHERE a.pipeline = :pipeline AND t.is_negative",
            pipeline=pipeline,
        )
        for pipeline, (table, ids) in _GROUPS.items()
    }


def future(results: Engine) -> Findings:
    """Sales that are dated later than a clock may be ahead, as far as the join has read.

    Its cost grows with their number.
    """
    return _findings(
        results,
        "SELECT count(*), (array_agg(t.sale_id || to_char(t.sold_at AT TIME ZONE 'UTC', "
        r"""' (YYYY-MM-DD HH24\:MI "UTC)"') ORDER BY t.sold_at, t.sale_id))[1\:10] FROM active_freshness AS f """
        "JOIN joined_sales AS t ON t.generation = f.generation WHERE f.pipeline = :pipeline "
        "AND t.sales_count > 0 AND t.sold_at > now() + :ahead",
        pipeline=ENRICHED_SALES.name,
        ahead=CLOCKS_AHEAD,
    )


def _findings(results: Engine, question: str, **parameters: object) -> Findings:
    with results.connect() as connection:
        count, first = connection.execute(text(question), parameters).one()
    return Findings(count, tuple(first or ()))


def _consumed(
    settings: KafkaSettings, topics: GenerationTopics, rows: Sequence[Row[Any]]
) -> dict[tuple[str, tuple[str, int]], int]:
    """Offsets that the steps of a generation have reached, by step, and topic and partition."""
    logs: tuple[Topic, ...] = (SALES_EVENTS, PAYMENT_CONFIRMATIONS)
    groups = [("combine", group, logs) for group in combine_groups(topics.pipeline, topics.generation)]
    groups.append(("merge", topics.group_id("merge"), (topics.partials,)))
    return {
        (step, place): offset
        for step, group, read in groups
        for place, offset in _committed(settings, group, read).items()
    } | {
        ("sink", (topics.state.name, row.partition)): row.next_offset
        for row in rows
        if row.partition is not None
    }


def _ends(client: AdminClient, topics: Iterable[Topic]) -> dict[tuple[str, int], int]:
    """Last stable offsets, by topic and partition."""
    places = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
    ends = listed(client, places, LATEST, IsolationLevel.READ_COMMITTED, TIMEOUT_SECONDS)
    return {(place.topic, place.partition): offset for place, offset in ends.items()}


def _committed(settings: KafkaSettings, group: str, topics: Iterable[Topic]) -> dict[tuple[str, int], int]:
    """Offsets that a group has committed; empty for a group that does not exist."""
    client = consumer(settings, group, subscribed=False)
    try:
        return {
            (topic.name, partition): offset
            for topic in topics
            for partition, offset in committed_offsets(client, topic.name, range(topic.partitions)).items()
        }
    finally:
        client.close()


def _source_positions(settings: KafkaSettings) -> dict[str, SourcePosition]:
    """The newest position of every source."""
    return {
        record["source"]: SourcePosition(record["next_seq"], record["frontier"], record["detail"])
        for kind, record in _newest(settings, SOURCE_POSITIONS).values()
        if kind == "electrored.SourcePosition"
    }


def _duplicates(settings: KafkaSettings, progress: Topic) -> dict[str, int]:
    duplicates = Counter[str]()
    for key, record in _newest(settings, progress).items():
        step, topic, _ = key.decode().split("/")
        if step.startswith("combine"):
            duplicates[topic] += record["duplicates"]
    return dict(duplicates)


def _newest(settings: KafkaSettings, topic: Topic) -> dict[bytes, Any]:
    """The newest record under each key of a compacted topic of one partition, read from its beginning."""
    codec = Registry(settings).reader(load(topic.schema))
    newest: dict[bytes, bytes | None] = {}
    with Reader(settings, "electrored.standing", topic.name, timeout_seconds=TIMEOUT_SECONDS) as reader:
        reader.seek({0: 0})
        for messages in reader.read_to({0: reader.bounds()[1]}):
            newest.update((message.key() or b"", message.value()) for message in messages)
    decoded = {}
    for key, value in newest.items():
        # One that does not decode is reported by the process that owns the topic.
        with suppress(Undecodable):
            if value is not None:
                decoded[key] = codec.decode(value)
    return decoded
