"""A payment service with a test's own answers, the simulated one, and fresh topics to poll into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from contracts.settings import SalesDbSettings
from contracts.topics import DEAD_LETTERS, PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS
from kafka_client import clients
from sources.soap.poll import Topics
from stack import ports
from stack.embedded import Embedded
from tests.support.soap_server import (
    Polls,
    Server,
    Service,
    serving,
)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def polls(stack: Embedded) -> Polls:
    suffix = uuid4().hex[:12]
    topics = Topics(
        *(
            replace(topic, name=f"{topic.name}-{suffix}")
            for topic in (PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS, DEAD_LETTERS)
        )
    )
    clients.ensure_topics(stack.kafka, (topics.confirmations, topics.positions, topics.dead_letters))
    return Polls(stack, topics)


@pytest.fixture
def service(sales_db: SalesDbSettings, tmp_path: Path) -> Iterator[Service]:
    (port,) = ports.free(1)
    found = Service(sales_db, tmp_path, port)
    found.start()
    try:
        yield found
    finally:
        if found.running is not None and found.running.poll() is None:
            found.kill()
