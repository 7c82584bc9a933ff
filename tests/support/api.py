"""The API's results as the sink and a promotion write them, and its answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine, insert, text

from api.queries import CITY, ENRICHED, SALESMAN
from contracts.tables import (
    active_generations,
    city_totals,
    generations,
    joined_sales,
    salesman_totals,
    sink_positions,
)
from tests.support import results

DAY = datetime(2026, 11, 22, tzinfo=UTC)
# What the API takes for the time of day; a test may turn it.
NOON = DAY + timedelta(hours=12)
CITIES = "/api/v1/top-sales/by-city"
SALESMEN = "/api/v1/top-salesmen/by-country"


@dataclass
class ApiResults:
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
        values = {"generation": 1, "updated_at": DAY + timedelta(hours=13)} | results.sale(sale_id, amount)
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


@dataclass
class Clock:
    """Stands still."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


def ask(client: TestClient, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["type"] == "about:blank"
    return body


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
