"""The API's results as the sink and a promotion write them, and its answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
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
from tests.support.generation_rows import generation_row, write_watermarks

DAY = results.DAY
# What the API takes for the time of day; a test may turn it.
NOON = DAY + timedelta(hours=12)
# What the engine writes beside a group's total.
ROW = {"generation": 1, "restated_at": None, "updated_at": DAY + timedelta(hours=1)}
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
        parameters = {"time_zone": time_zone, "grace_seconds": grace, "calendar": calendar}
        row = generation_row(pipeline, number, "standby", 2, parameters=parameters, zone_rules=zone_rules)
        with self.engine.begin() as connection:
            connection.execute(insert(generations).values(row))

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
            write_watermarks(connection, pipeline, 1, watermarks)

    def city(self, city: str, total: str, country: str = "DE", currency: str = "EUR", **more: Any) -> None:
        group = results.window_total(total, city=city, country=country, currency=currency)
        self._apply(CITY, city_totals, ROW | group | more)

    def salesman(self, who: str, total: str, country: str = "DE", currency: str = "EUR", **more: Any) -> None:
        names = {"salesman_id": who, "salesman_name": f"Name of {who}"}
        group = results.window_total(total, days=30, country=country, currency=currency) | names
        self._apply(SALESMAN, salesman_totals, ROW | group | more)

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
