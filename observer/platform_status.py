"""Status of the platform at one time: end offsets, committed offsets, positions of sources, results.

Reading it costs a handful of requests and changes nothing: no group is joined, no offset committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from confluent_kafka import (
    IsolationLevel,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine, text

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
# One request of a compacted topic, of which a few reach its end.
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
    """The active generation of a pipeline. `…_behind` are offsets, which count transaction markers too.

    Nothing in it is counted from the rows: its cost does not depend on their number.
    """

    generation: int
    promotion_number: int
    apply_number: int
    watermark: datetime | None
    combine_behind: int
    merge_behind: int
    sink_behind: int
    # The same one by one: by step, topic and partition.
    lags: Mapping[tuple[str, str, int], int] = field(default_factory=dict)
    # By log: events that were dropped as duplicates since the generation began.
    duplicates: Mapping[str, int] = field(default_factory=dict)
    # Whether this machine's rules of its time zone differ from those that it was created with.
    is_outdated: bool = False


@dataclass(frozen=True)
class Overlap:
    """Sale ids that count in more than one source, as far as the join has read: how many, and the first of them."""

    count: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class NegativeGroups:
    """Groups that more sales were taken back from than were counted: how many, and the first of them."""

    count: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Future:
    """Sales of a time that is still to come, as far as the join has read: how many, and the first of them."""

    count: int = 0
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlatformStatus:
    """By name: the end of every topic (sum over partitions), each source, each pipeline with a generation."""

    topics: dict[str, int]
    sources: dict[str, SourcePosition]
    pipelines: dict[str, PipelineStatus]
    overlap: Overlap
    future: Future = Future()
    # By pipeline; not read by `read_status`, which must not wait for a lock on the totals.
    negative: Mapping[str, NegativeGroups] = field(default_factory=dict)


@dataclass(frozen=True)
class _Results:
    generation: int
    promotion_number: int
    apply_number: int
    watermark: datetime | None
    time_zone: str
    # SHA-256 of the rules that the generation was created with; they are long.
    rules: str | None
    sink_offsets: dict[int, int]


def read_status(settings: KafkaSettings, results: Engine, *, positions: bool = True) -> PlatformStatus:
    """Read the status; source positions and duplicates only with `positions`.

    Committed offsets are read before the end offsets, so no lag is negative. Raises KafkaException or SQLAlchemyError
    if one of the two does not answer.
    """
    client = admin(settings)
    stored = {name: row for name in PIPELINES if (row := _results(results, name)) is not None}
    topics = {name: GenerationTopics(name, row.generation) for name, row in stored.items()}
    combined = {
        name: {
            place: offset
            for group in combine_groups(name, row.generation)
            for place, offset in _committed(settings, group, (SALES_EVENTS, PAYMENT_CONFIRMATIONS)).items()
        }
        for name, row in stored.items()
    }
    merged = {
        name: _committed(settings, topics[name].group_id("merge"), (topics[name].partials,))
        for name in stored
    }
    sources = _source_positions(settings) if positions else {}
    internal = [topic for name in stored for topic in topics[name].all]
    ends = _ends(client, (*PUBLIC, *internal))
    pipelines = {}
    for name, row in stored.items():
        state = topics[name].state.name
        sunk = {(state, p): offset for p, offset in row.sink_offsets.items()}
        pipelines[name] = PipelineStatus(
            generation=row.generation,
            promotion_number=row.promotion_number,
            apply_number=row.apply_number,
            watermark=row.watermark,
            is_outdated=row.rules not in (None, fingerprint_here(row.time_zone)),
            combine_behind=_behind(ends, combined[name]),
            merge_behind=_behind(ends, merged[name]),
            sink_behind=_behind(ends, sunk),
            lags={
                (step, *place): behind
                for step, consumed in (("combine", combined[name]), ("merge", merged[name]), ("sink", sunk))
                for place, behind in _each_behind(ends, consumed).items()
            },
            duplicates=_duplicates(settings, topics[name].progress) if positions else {},
        )
    sums: dict[str, int] = {}
    for (topic, _), end in ends.items():
        sums[topic] = sums.get(topic, 0) + end
    return PlatformStatus(sums, sources, pipelines, overlap(results), future(results))


def overlap(results: Engine) -> Overlap:
    """Ids that no payment can be joined to, because several sources have them. Its cost grows with their number."""
    with results.connect() as connection:
        count, first = connection.execute(
            text(
                # A colon would begin a parameter.
                r"SELECT count(DISTINCT sale_id), (array_agg(DISTINCT sale_id ORDER BY sale_id))[1\:10] "
                "FROM enriched_sales WHERE ambiguous"
            )
        ).one()
    return Overlap(count, tuple(first or ()))


# By pipeline: the table of its groups, and the columns that identify one.
_GROUPS = {
    TOP_SALES_BY_CITY.name: ("city_totals", "t.window_start, t.country, t.city, t.currency"),
    TOP_SALESMAN_BY_COUNTRY.name: (
        "salesman_totals",
        "t.window_start, t.country, t.salesman_id, t.currency",
    ),
    ENRICHED_SALES.name: ("joined_sales", "t.source, t.sale_id"),
}


def negative_groups(results: Engine) -> dict[str, NegativeGroups]:
    """Of each pipeline's active generation. By a partial index: its cost grows with their number."""
    negative = {}
    with results.connect() as connection:
        for pipeline, (table, ids) in _GROUPS.items():
            count, first = connection.execute(
                text(
                    f"SELECT count(*), (array_agg(concat_ws(' ', {ids}) ORDER BY {ids}))[1\\:10] FROM {table} t "
                    "JOIN active_generations a ON a.generation = t.generation "
                    "WHERE a.pipeline = :pipeline AND t.is_negative"
                ),
                {"pipeline": pipeline},
            ).one()
            negative[pipeline] = NegativeGroups(count, tuple(first or ()))
    return negative


def future(results: Engine) -> Future:
    """Sales that are dated later than a clock may be ahead. Its cost grows with their number."""
    with results.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT t.sale_id, t.sold_at, count(*) OVER () AS sales FROM active_freshness AS f "
                "JOIN joined_sales AS t ON t.generation = f.generation WHERE f.pipeline = :pipeline "
                "AND t.sales_count > 0 AND t.sold_at > now() + :ahead ORDER BY t.sold_at, t.sale_id LIMIT 10"
            ),
            {"pipeline": ENRICHED_SALES.name, "ahead": CLOCKS_AHEAD},
        ).all()
    first = tuple(f"{row.sale_id} ({row.sold_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC)" for row in rows)
    return Future(rows[0].sales if rows else 0, first)


def _results(results: Engine, pipeline: str) -> _Results | None:
    """The active generation, from one snapshot of the results database; None before there is one."""
    with results.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        active = connection.execute(
            text(
                "SELECT f.generation, f.promotion_number, f.apply_number, f.watermark, f.time_zone, "
                "encode(sha256(convert_to(g.zone_rules, 'UTF8')), 'hex') AS rules FROM active_freshness AS f "
                "JOIN generations AS g ON g.pipeline = f.pipeline AND g.number = f.generation "
                "WHERE f.pipeline = :pipeline"
            ),
            {"pipeline": pipeline},
        ).one_or_none()
        if active is None:
            return None
        positions = connection.execute(
            text(
                'SELECT "partition", next_offset FROM sink_positions '
                "WHERE pipeline = :pipeline AND generation = :generation"
            ),
            {"pipeline": pipeline, "generation": active.generation},
        )
        offsets = {int(partition): int(offset) for partition, offset in positions}
        return _Results(**active._mapping, sink_offsets=offsets)


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


def _behind(ends: dict[tuple[str, int], int], consumed: dict[tuple[str, int], int]) -> int:
    return sum(_each_behind(ends, consumed).values())


def _each_behind(
    ends: dict[tuple[str, int], int], consumed: dict[tuple[str, int], int]
) -> dict[tuple[str, int], int]:
    return {place: max(0, ends[place] - offset) for place, offset in consumed.items() if place in ends}


def _source_positions(settings: KafkaSettings) -> dict[str, SourcePosition]:
    """The newest position of every source."""
    positions: dict[str, SourcePosition] = {}
    for kind, record in _newest(settings, SOURCE_POSITIONS).values():
        if kind == "electrored.SourcePosition":
            positions[record["source"]] = SourcePosition(
                record["next_seq"], record["frontier"], record["detail"]
            )
    return positions


def _duplicates(settings: KafkaSettings, progress: Topic) -> dict[str, int]:
    duplicates: dict[str, int] = {}
    for key, record in _newest(settings, progress).items():
        step, topic, _ = key.decode().split("/")
        if step.startswith("combine"):
            duplicates[topic] = duplicates.get(topic, 0) + record["duplicates"]
    return duplicates


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
