"""A results database of the test's own, and calls in processes that a failpoint ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import ResultsDbSettings
from stack.embedded import Embedded
from streaming.replay.failpoints import VARIABLE

ROOT = Path(__file__).parents[4]


@pytest.fixture
def engine(results_db: ResultsDbSettings) -> Iterator[Engine]:
    engine = create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def child(stack: Embedded, results_db: ResultsDbSettings) -> Callable[..., int]:
    """Run a call in a process of its own; gives how it ended."""

    def run(call: str, number: int, fingerprint: str = "", failpoint: str = "") -> int:
        given = {
            "call": call,
            "pipeline": "top-sales-by-city",
            "number": number,
            "results_url": results_db.results_db_url.get_secret_value(),
            "fingerprint": fingerprint,
        }
        environment = os.environ | {
            "ELECTRORED_KAFKA_BOOTSTRAP": stack.kafka.kafka_bootstrap,
            "ELECTRORED_SCHEMA_REGISTRY_URL": stack.kafka.schema_registry_url,
            VARIABLE: failpoint,
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "tests.integration.streaming.replay.process", json.dumps(given)]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode

    return run
