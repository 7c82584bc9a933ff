"""The API over a results database that a test fills by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from api.main import create_app
from api.queries import CITY, ENRICHED, SALESMAN
from contracts.settings import ApiSettings, ResultsDbSettings
from tests.support.api import ApiResults, Clock


@pytest.fixture
def empty(results_db: ResultsDbSettings) -> Iterator[ApiResults]:
    """Migrated, and nothing in it."""
    engine = create_engine(results_db.results_db_url.get_secret_value())
    yield ApiResults(engine)
    engine.dispose()


@pytest.fixture
def filled(empty: ApiResults) -> ApiResults:
    """Generation 1 of every pipeline is active, without rows."""
    for pipeline, calendar in ((CITY, "1-day"), (SALESMAN, "30-days"), (ENRICHED, "1-day")):
        empty.generation(pipeline, 1, calendar)
        empty.promote(pipeline)
    return empty


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(
    stack: Any, results_db: ResultsDbSettings, empty: ApiResults, clock: Clock
) -> Iterator[TestClient]:
    """As the process runs it, with the role that only reads, at noon of `DAY`."""
    url = stack.postgres(empty.engine.url.database, "electrored_reader")
    settings = ApiSettings.model_validate({"results_db_url": url.render_as_string(hide_password=False)})
    with TestClient(create_app(settings, clock), raise_server_exceptions=False) as client:
        yield client
