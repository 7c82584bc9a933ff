"""Errors are counted from the first one on."""

from __future__ import annotations

from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from pydantic import SecretStr

from api.main import create_app
from contracts.settings import ApiSettings

ASKED = {
    "/api/v1/top-sales/by-city": "/api/v1/top-sales/by-city",
    "/api/v1/top-salesmen/by-country": "/api/v1/top-salesmen/by-country",
    "/api/v1/payments/summary?date=2026-01-01": "/api/v1/payments/summary",
    "/api/v1/sales/x": "/api/v1/sales/{sale_id:path}",
    "/api/v1/generations": "/api/v1/generations",
    "/api/v1/generations/a/1/difference": "/api/v1/generations/{pipeline}/{generation}/difference",
    "/api/v1/generations/a/1/difference.csv": "/api/v1/generations/{pipeline}/{generation}/difference.csv",
    "/api/v1/lineage?dataset=inbox": "/api/v1/lineage",
    "/readyz": "/readyz",
}


def counted(status: int) -> dict[str, float]:
    """Answers with this status by route, of those that are counted."""
    return {
        sample.labels["route"]: sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "electrored_api_request_seconds_count" and sample.labels["status"] == str(status)
    }


def test_errors_of_every_route_are_counted_from_0_on() -> None:
    app = create_app(ApiSettings(results_db_url=SecretStr("postgresql+psycopg2://nobody@127.0.0.1:1/none")))
    before = counted(503)
    assert set(ASKED.values()) <= set(before)
    assert set(before) == set(counted(500))
    with TestClient(app) as client:
        assert {client.get(path).status_code for path in ASKED} == {503}
    assert counted(503) == before | {route: before[route] + 1 for route in ASKED.values()}
