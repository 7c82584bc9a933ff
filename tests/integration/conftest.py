"""Pipelines on a real Kafka, for every test of this folder."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.settings import ResultsDbSettings
from contracts.topics import DEAD_LETTERS, LATE_EVENTS, SOURCE_POSITIONS
from kafka_client import clients as connect
from stack.embedded import Embedded
from streaming import pipelines
from streaming.engine.loop import Loop
from streaming.replay import barrier as coordinator
from tests.support.live_harness import LiveHarness
from tests.support.pipeline_harness import PipelineHarness


@pytest.fixture
def harness(stack: Embedded, results_db: ResultsDbSettings, tmp_path: Path) -> Iterator[PipelineHarness]:
    """Topics and a generation of the test's own, deleted afterwards."""
    made = PipelineHarness(stack.kafka, results_db.results_db_url.get_secret_value(), tmp_path)
    yield made
    made.close()


@pytest.fixture
def live(
    harness: PipelineHarness, results_db: ResultsDbSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveHarness]:
    """The pipeline of the harness, known under its own name."""
    connect.ensure_topics(harness.kafka, [SOURCE_POSITIONS, LATE_EVENTS, DEAD_LETTERS])
    name, version = harness.pipeline.name, harness.pipeline.version
    monkeypatch.setitem(pipelines.PIPELINES, (name, version), harness.pipeline)
    monkeypatch.setitem(pipelines.CURRENT, name, version)
    # Below the 5 s for which a promotion may be idle under its locks.
    monkeypatch.setattr(coordinator, "LOCKED_SECONDS", 4.0)
    live = LiveHarness(harness, results_db, tmp_path / "live")
    monkeypatch.setattr(Loop, "run_once", live.counted(Loop.run_once))
    yield live
    # A worker has its process to itself, and turns the collector off.
    gc.unfreeze()
    gc.enable()
