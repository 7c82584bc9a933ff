"""Change capture on real servers: a fresh table, fresh topics, and ways to look at both."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from contracts.settings import SalesDbSettings
from contracts.topics import DEAD_LETTERS, SALES_EVENTS, SOURCE_POSITIONS
from kafka_client import clients
from sources.postgres.writer import Topics
from stack.embedded import Embedded
from tests.support.capture import Sales
from tests.support.postgres_server import Server


@pytest.fixture
def sales(stack: Embedded, sales_db: SalesDbSettings) -> Sales:
    """A fresh table with fresh topics."""
    suffix = uuid4().hex[:12]
    topics = Topics(
        *(replace(t, name=f"{t.name}-{suffix}") for t in (SALES_EVENTS, SOURCE_POSITIONS, DEAD_LETTERS))
    )
    clients.ensure_topics(stack.kafka, (topics.events, topics.positions, topics.dead_letters))
    return Sales(stack, sales_db, topics)


@pytest.fixture(scope="module")
def made() -> Iterator[Server]:
    """A server with an empty table, stopped, and a copy of it."""
    folder = Path(tempfile.mkdtemp(prefix="electrored-test-"))
    server = Server(folder / "own")
    server.start()
    server.provision()
    server.stop()
    server.copy("empty")
    yield server
    shutil.rmtree(folder, ignore_errors=True)
