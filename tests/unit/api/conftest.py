"""The whole application, without its database: a refusal comes before any query."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from contracts.settings import ApiSettings


@pytest.fixture(scope="session")
def bare() -> Iterator[TestClient]:
    # Port 1 never answers.
    settings = ApiSettings.model_validate({"results_db_url": "postgresql+psycopg2://nobody@127.0.0.1:1/none"})
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client
