"""A record that a topic does not allow ends the process at once: a retry would be refused too."""

from __future__ import annotations

import os
from dataclasses import replace
from uuid import uuid4

import pytest

from contracts.topics import LATE_EVENTS
from kafka_client.clients import consumer, ensure_topics, transactional_producer
from kafka_client.errors import Fatal
from stack.embedded import Embedded
from streaming.engine.step import OutRecord
from streaming.engine.transactions import Transactions


def test_a_record_larger_than_its_topic_allows_is_fatal_and_named(stack: Embedded) -> None:
    name = f"small-{uuid4().hex[:8]}"
    ensure_topics(stack.kafka, [replace(LATE_EVENTS, name=name, config={"max.message.bytes": "1000"})])
    over = Transactions(lambda: transactional_producer(stack.kafka, name), "flow")
    reader = consumer(stack.kafka, name, subscribed=False)
    group = reader.consumer_group_metadata()
    over.commit([OutRecord(name, 0, b"k", b"v")], {}, group)
    # Random, so that compression does not make it fit.
    with pytest.raises(Fatal, match=rf"5,001 bytes, for topic {name};"):
        over.commit([OutRecord(name, 0, b"k", b"v"), OutRecord(name, 0, b"k", os.urandom(5_000))], {}, group)
    over.close()
    reader.close()
