"""Settings of an emitter, and where its events wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.settings import CsvSettings, LineageSettings, ResultsDbSettings, SalesDbSettings
from contracts.topics import OPENLINEAGE_EVENTS
from kafka_client.clients import ensure_topics
from lineage.emitter import Known
from stack.embedded import Embedded


@pytest.fixture
def settings(tmp_path: Path) -> LineageSettings:
    return LineageSettings(lineage_dir=tmp_path / "lineage", lineage_every_seconds=0.2)


@pytest.fixture
def known(
    stack: Embedded, sales_db: SalesDbSettings, results_db: ResultsDbSettings, tmp_path: Path
) -> tuple[Known, ...]:
    ensure_topics(stack.kafka, [OPENLINEAGE_EVENTS])
    return stack.kafka, sales_db, results_db, CsvSettings(csv_inbox=tmp_path / "inbox")
