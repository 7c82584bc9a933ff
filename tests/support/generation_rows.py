"""An active generation's rows in the results database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, insert

from contracts import tables
from contracts.topics import GenerationTopics

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
PIPELINE = "top-sales-by-city"


def activate(connection: Connection, topics: GenerationTopics, pipeline: str = PIPELINE) -> None:
    described = {topic.name: {"id": "x", "partitions": topic.partitions} for topic in topics.all}
    connection.execute(
        insert(tables.generations).values(
            pipeline=pipeline,
            number=topics.generation,
            version=1,
            state="active",
            parameters={"time_zone": "UTC", "grace_seconds": 3600, "calendar": "1-day"},
            topics=described,
            start_offsets={},
            reason="test",
            created_by="test",
            created_at=AT,
            apply_number=7,
        )
    )
    pointer = {"pipeline": pipeline, "generation": topics.generation, "promotion_number": 3}
    connection.execute(insert(tables.active_generations).values(pointer))
    for partition in range(topics.state.partitions):
        position = {
            "pipeline": pipeline,
            "generation": topics.generation,
            "partition": partition,
            "topic_id": "x",
            "next_offset": 0,
            "watermark": AT.replace(minute=partition),
        }
        connection.execute(insert(tables.sink_positions).values(position))
