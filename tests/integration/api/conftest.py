"""The API over a results database that a test fills by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, insert, text

from api.main import create_app
from api.queries import CITY, ENRICHED, SALESMAN
from contracts.settings import ApiSettings, ResultsDbSettings
from contracts.tables import (
    active_generations,
    city_totals,
    generations,
    joined_sales,
    salesman_totals,
    sink_positions,
)

DAY = datetime(2026, 11, 22, tzinfo=UTC)
# What the API takes for the time of day; a test may turn it.
NOON = DAY + timedelta(hours=12)


@dataclass
class Filled:
    """Writes what the sink and a promotion would."""

    engine: Engine

    def generation(
        self,
        pipeline: str,
        number: int = 1,
        calendar: str = "1-day",
        time_zone: str = "UTC",
        zone_rules: str | None = None,
        grace: float = 3600.0,
    ) -> None:
        topic = f"{pipeline}.g{number}.state"
        with self.engine.begin() as connection:
            connection.execute(
                insert(generations).values(
                    pipeline=pipeline,
                    number=number,
                    version=1,
                    state="standby",
                    parameters={"time_zone": time_zone, "grace_seconds": grace, "calendar": calendar},
                    zone_rules=zone_rules,
                    topics={topic: {"id": "x", "partitions": 2}},
                    start_offsets={},
                    reason="a test",
                    created_by="a test",
                    created_at=DAY,
                )
            )

    def promote(self, pipeline: str, number: int = 1) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    f"INSERT INTO {active_generations.name} VALUES (:pipeline, :number, 1) ON CONFLICT (pipeline) "
                    "DO UPDATE SET generation = :number, promotion_number = active_generations.promotion_number + 1"
                ),
                {"pipeline": pipeline, "number": number},
            )

    def watermarks(self, pipeline: str, *watermarks: datetime | None) -> None:
        with self.engine.begin() as connection:
            connection.execute(sink_positions.delete().where(sink_positions.c.pipeline == pipeline))
            connection.execute(
                text("UPDATE generations SET apply_number = apply_number + 1 WHERE pipeline = :pipeline"),
                {"pipeline": pipeline},
            )
            for partition, watermark in enumerate(watermarks):
                connection.execute(
                    insert(sink_positions).values(
                        pipeline=pipeline,
                        generation=1,
                        partition=partition,
                        topic_id="x",
                        next_offset=0,
                        watermark=watermark,
                    )
                )

    def city(self, city: str, total: str, country: str = "DE", currency: str = "EUR", **more: Any) -> None:
        values = _group(total) | {"country": country, "city": city, "currency": currency} | more
        self._apply(CITY, city_totals, values)

    def salesman(self, who: str, total: str, country: str = "DE", currency: str = "EUR", **more: Any) -> None:
        values = _group(total) | {
            "window_end": DAY + timedelta(days=30),
            "country": country,
            "salesman_id": who,
            "salesman_name": f"Name of {who}",
            "currency": currency,
        }
        self._apply(SALESMAN, salesman_totals, values | more)

    def sale(self, sale_id: str, amount: str = "10.0000", **more: Any) -> None:
        values = {
            "generation": 1,
            "sale_id": sale_id,
            "source": "postgres",
            "currency": "EUR",
            "sales_count": 1,
            "quantity": 1,
            "amount": Decimal(amount),
            "sold_at": DAY + timedelta(hours=12),
            "country": "DE",
            "city": "Berlin",
            "salesman_id": "s1",
            "salesman_name": "Ada",
            "product": "tv",
            "status": "PENDING",
            "payments": [],
            "ambiguous": False,
            "updated_at": DAY + timedelta(hours=13),
        }
        self._apply(ENRICHED, joined_sales, values | more)

    def _apply(self, pipeline: str, table: Any, values: dict[str, Any]) -> None:
        with self.engine.begin() as connection:
            number = connection.scalar(
                text(
                    "UPDATE generations SET apply_number = apply_number + 1 "
                    "WHERE pipeline = :pipeline AND number = :number RETURNING apply_number"
                ),
                {"pipeline": pipeline, "number": values["generation"]},
            )
            connection.execute(insert(table).values(values | {"apply_number": number}))


def _group(total: str) -> dict[str, Any]:
    return {
        "generation": 1,
        "window_start": DAY,
        "window_end": DAY + timedelta(days=1),
        "total": Decimal(total),
        "sales_count": 1,
        "late_count": 0,
        "late_amount": Decimal(0),
        "restated_at": None,
        "updated_at": DAY + timedelta(hours=1),
    }


@pytest.fixture
def empty(results_db: ResultsDbSettings) -> Iterator[Filled]:
    """Migrated, and nothing in it."""
    engine = create_engine(results_db.results_db_url.get_secret_value())
    yield Filled(engine)
    engine.dispose()


@pytest.fixture
def filled(empty: Filled) -> Filled:
    """Generation 1 of every pipeline is active, without rows."""
    for pipeline, calendar in ((CITY, "1-day"), (SALESMAN, "30-days"), (ENRICHED, "1-day")):
        empty.generation(pipeline, 1, calendar)
        empty.promote(pipeline)
    return empty


@dataclass
class Clock:
    """Stands still."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(stack: Any, results_db: ResultsDbSettings, empty: Filled, clock: Clock) -> Iterator[TestClient]:
    """As the process runs it, with the role that only reads, at noon of `DAY`."""
    url = stack.postgres(empty.engine.url.database, "electrored_reader")
    settings = ApiSettings.model_validate({"results_db_url": url.render_as_string(hide_password=False)})
    with TestClient(create_app(settings, clock), raise_server_exceptions=False) as client:
        yield client
