"""The topic is open: foreign records, and those that a broker refuses, hold nothing back."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from openlineage.client.transport.kafka import KafkaConfig

from contracts.settings import LineageSettings, ResultsDbSettings
from contracts.topics import OPENLINEAGE_EVENTS
from kafka_client.clients import admin, client_config, consumer
from lineage import transports
from lineage.emitter import START, Known, open_emitter
from lineage.events import EventRefused, restored
from observability.progress_report import ProgressReport
from sources import lineage as of_sources
from stack.embedded import Embedded
from tests.support.lineage_client import answering, direct
from tests.support.lineage_events import JOBS, run_event
from tests.support.waiting import wait_until


def _event(**changes: Any) -> bytes:
    event = {
        "eventType": "START",
        "eventTime": "2026-11-23T09:00:00+00:00",
        "run": {"runId": "0192c7b7-2b0c-7a30-8f6e-2f4f0e0a0002", "facets": {}},
        "job": {"namespace": "other", "name": str(uuid4()), "facets": {}},
        "inputs": [],
        "outputs": [],
        "producer": "https://other",
    }
    return json.dumps(event | changes).encode()


ODD = (
    b"no event",
    b"[1]",
    b"\xff\xfe",
    _event(job=None),
    _event(job={"namespace": 1, "name": 2}),
    _event(eventTime="yesterday"),
    _event(inputs=None, outputs=None),
    _event(inputs=["x"], outputs=[None]),
    _event(run={"runId": "r", "facets": None}),
    _event(run={"runId": "r", "facets": {"errorMessage": {"message": "half \udcff, none \0"}}}),
    # Not refused before PostgreSQL: its moments end with the year 294276, its text is of another length.
    _event(job={"namespace": "other", "name": "x" * 100_000, "facets": {}}),
)


def test_what_others_tell_is_passed_over_or_shown_and_the_way_is_answered(
    stack: Embedded, results_db: ResultsDbSettings, known: tuple[Known, ...], settings: LineageSettings
) -> None:
    producer = Producer(client_config(stack.kafka))
    for value in (*ODD, None):
        producer.produce(OPENLINEAGE_EVENTS.name, value=value)
    assert producer.flush(30) == 0
    with open_emitter("test", *known, settings=settings) as lineage, lineage.run(of_sources.csv):
        pass
    with answering(stack, results_db) as ask:
        wait_until(lambda: "step" in ask("inbox.amount", direction="downstream"), what="answer")
        (step,) = [
            one
            for one in direct(ask("inbox.amount", direction="downstream")["step"])
            if one["name"] == "sales-events"
        ]
        assert step["column"] == "amount"


def test_what_the_broker_refuses_is_said_and_what_it_takes_arrives(stack: Embedded) -> None:
    """With settings of a user's own, whose client would give up in silence."""
    made = [json.dumps(run_event(job, START, ProgressReport())) for job in JOBS]
    least, most = min(made, key=len), max(made, key=len)
    small, large = restored(least), restored(most)
    topic = f"told-{uuid4().hex[:8]}"
    client = admin(stack.kafka)
    limit = str((len(least) + len(most)) // 2)
    client.create_topics([NewTopic(topic, 1, 1, config={"max.message.bytes": limit})])[topic].result()
    send = transports._sending(
        transports.AcknowledgedKafka(
            KafkaConfig({**client_config(stack.kafka), "message.timeout.ms": "1"}, topic)
        )
    )

    def is_taken() -> bool:
        try:
            send(small)
        except transports.NotDelivered:
            # Made a moment ago.
            return False
        return True

    wait_until(is_taken, what="the topic")
    with pytest.raises(EventRefused, match="too large"):
        send(large)
    send(small)
    reader = consumer(stack.kafka, "test-told", subscribed=False)
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), 30)[1] == 2
    reader.close()
