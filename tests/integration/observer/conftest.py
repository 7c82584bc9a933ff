"""An engine of the results database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine

from contracts.settings import ResultsDbSettings


@pytest.fixture
def engine(results_db: ResultsDbSettings) -> Iterator[Engine]:
    engine = create_engine(results_db.results_db_url.get_secret_value())
    yield engine
    engine.dispose()
