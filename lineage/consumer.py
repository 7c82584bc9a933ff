"""The topic `openlineage-events` → `lineage_jobs` and `lineage_runs` in the results database.

Rows and position are committed in one transaction, so a restart resumes where it was. It runs in a thread of the sink's
process: its failures are warnings and retried, and never end the sink.
"""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from confluent_kafka import TopicPartition
from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from contracts.settings import KafkaSettings
from contracts.tables import lineage_positions
from contracts.topics import OPENLINEAGE_EVENTS
from kafka_client.clients import consumer, describe_topics
from kafka_client.reader import take
from lineage.store import keep
from observability import logs
from observability.supervision import reason, supervise

AT_ONCE = 500
POLL_SECONDS = 1.0
# Pause after a failure of Kafka or of the database; no other component waits for this thread.
AGAIN_SECONDS = 10.0

_log = logs.get(__name__)


def consume(kafka: KafkaSettings, results: Engine, stop: threading.Event) -> None:
    """Store the topic's events until `stop` is set."""
    logged = ""

    def on_failure(error: Exception, _: int) -> bool:
        nonlocal logged
        if (line := f"{type(error).__name__}: {reason(error)}") != logged:
            _log.warning("lineage is not read, retried", reason=line)
        logged = line
        return True

    follow = partial(_follow, kafka, results, stop)
    supervise(follow, stop, [AGAIN_SECONDS], on_failure, steady_seconds=AGAIN_SECONDS)


def _follow(kafka: KafkaSettings, results: Engine, stop: threading.Event) -> None:
    topic = OPENLINEAGE_EVENTS.name
    topic_id, _ = describe_topics(kafka, [topic])[topic]
    with results.connect() as connection:
        position = connection.scalar(
            select(lineage_positions.c.next_offset).where(lineage_positions.c.topic_id == topic_id)
        )
    # Deleted by retention: the runs that go on emit events again.
    overrides = {"auto.offset.reset": "earliest"}
    with closing(consumer(kafka, f"{topic}.keeper", subscribed=False, overrides=overrides)) as client:
        positions = {0: position or 0}
        client.assign([TopicPartition(topic, 0, positions[0])])
        while not stop.is_set():
            if messages := take(client, positions, POLL_SECONDS, AT_ONCE):
                with results.begin() as connection:
                    keep(connection, (message.value() for message in messages), datetime.now(UTC))
                    _move(connection, topic_id, positions[0])


def _move(connection: Connection, topic_id: str, next_offset: int) -> None:
    values = {"topic_id": topic_id, "next_offset": next_offset}
    connection.execute(
        insert(lineage_positions)
        .values(values)
        .on_conflict_do_update(index_elements=["topic_id"], set_={"next_offset": next_offset})
    )
