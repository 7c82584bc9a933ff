"""Cities that look alike, among those that count now."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert

from contracts import tables
from contracts.topics import TOP_SALES_BY_CITY, GenerationTopics
from observer.lookalikes import LookAlikes, look_alikes
from tests.support.generation_rows import activate


def test_row_15_cities_that_look_alike_are_those_of_the_newest_windows(engine: Engine) -> None:
    assert look_alikes(engine) == LookAlikes()
    topics = GenerationTopics(TOP_SALES_BY_CITY.name, random.randrange(1_000, 1_000_000))
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

    def row(
        city: str, days_ago: int = 0, generation: int = topics.generation, count: int = 1
    ) -> dict[str, Any]:
        start = today - timedelta(days=days_ago)
        return {
            "generation": generation, "window_start": start, "window_end": start + timedelta(days=1),
            "country": "DE", "city": city, "currency": "EUR", "total": 1, "sales_count": count, "late_count": 0,
            "late_amount": 0, "updated_at": today, "apply_number": 1,
        }  # fmt: skip

    with engine.begin() as connection:
        activate(connection, topics, TOP_SALES_BY_CITY.name)
        found = [
            *(row("Berlin", days) for days in range(3)),
            row("B\u0435rlin"),
            row("Köln"),
            # Of another generation, taken back, long ago, and one dated in a hundred years.
            row("Koln", generation=topics.generation + 1),
            row("KÖLN", count=0),
            row("köln", days_ago=40),
            row("Ulm", days_ago=-36_500),
        ]
        connection.execute(insert(tables.city_totals), found)
    assert look_alikes(engine) == LookAlikes(1, ("DE/Berlin = DE/B\u0435rlin (U+0435)",), 4)
