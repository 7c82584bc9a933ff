"""A generation on a real Kafka for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.settings import ResultsDbSettings
from stack.embedded import Embedded
from tests.support.join_harness import JoinHarness


@pytest.fixture
def join(
    stack: Embedded, results_db: ResultsDbSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[JoinHarness]:
    harness = JoinHarness(stack, results_db, tmp_path, monkeypatch)
    yield harness
    harness.close()
