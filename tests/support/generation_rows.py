"""Rows of generations in the results database, with what a test changes of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert

from contracts.tables import active_generations, generations, sink_positions
from contracts.topics import GenerationTopics

DAY = datetime(2026, 11, 22, tzinfo=UTC)
AT = DAY.replace(hour=12)
PIPELINE = "top-sales-by-city"
PARAMETERS = {"time_zone": "UTC", "grace_seconds": 3600.0, "calendar": "1-day"}


def generation_row(
    pipeline: str, number: int, state: str, partitions: int = 4, **more: Any
) -> dict[str, Any]:
    return {
        "pipeline": pipeline, "number": number, "version": 1, "state": state, "parameters": PARAMETERS,
        "topics": {f"{pipeline}.g{number}.state": {"id": "x", "partitions": partitions}}, "start_offsets": {},
        "reason": "a test", "created_by": "a test", "created_at": DAY,
    } | more  # fmt: skip


def write_watermarks(
    connection: Connection, pipeline: str, number: int, watermarks: Iterable[datetime | None]
) -> None:
    """The sink's positions of a generation, partition by partition."""
    common = {"pipeline": pipeline, "generation": number, "topic_id": "x", "next_offset": 0}
    for partition, watermark in enumerate(watermarks):
        row = common | {"partition": partition, "watermark": watermark}
        connection.execute(insert(sink_positions).values(row))


def activate(connection: Connection, topics: GenerationTopics, pipeline: str = PIPELINE) -> None:
    described = {topic.name: {"id": "x", "partitions": topic.partitions} for topic in topics.all}
    number = topics.generation
    row = generation_row(pipeline, number, "active", topics=described, created_at=AT, apply_number=7)
    connection.execute(insert(generations).values(row))
    pointer = {"pipeline": pipeline, "generation": number, "promotion_number": 3}
    connection.execute(insert(active_generations).values(pointer))
    watermarks = [AT.replace(minute=partition) for partition in range(topics.state.partitions)]
    write_watermarks(connection, pipeline, number, watermarks)
