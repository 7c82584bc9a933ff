"""A generation on a real Kafka for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.settings import ResultsDbSettings
from stack.embedded import Embedded
from tests.integration.streaming.ground import Ground


@pytest.fixture
def ground(stack: Embedded, results_db: ResultsDbSettings, tmp_path: Path) -> Iterator[Ground]:
    """Topics and a generation of the test's own, deleted afterwards."""
    made = Ground(stack.kafka, results_db.results_db_url.get_secret_value(), tmp_path)
    yield made
    made.close()
