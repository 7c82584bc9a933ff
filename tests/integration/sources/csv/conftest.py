"""The CSV source on real servers: fresh topics, a fresh results database, an inbox, and ways to look at them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from contracts.settings import CsvSettings, ResultsDbSettings
from contracts.topics import DEAD_LETTERS, SALES_EVENTS, SOURCE_POSITIONS
from kafka_client import clients
from sources.csv.source import Topics
from stack.embedded import Embedded
from tests.support.csv_desk import Desk


@pytest.fixture
def desk(stack: Embedded, results_db: ResultsDbSettings, tmp_path: Path) -> Desk:
    suffix = uuid4().hex[:12]
    topics = Topics(
        *(replace(t, name=f"{t.name}-{suffix}") for t in (SALES_EVENTS, SOURCE_POSITIONS, DEAD_LETTERS))
    )
    clients.ensure_topics(stack.kafka, (topics.events, topics.positions, topics.dead_letters))
    return Desk(stack, results_db, CsvSettings(csv_inbox=tmp_path, csv_settle_seconds=0), topics)
