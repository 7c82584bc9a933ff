"""Periodic checks of a loop: topic identity, assignment, size of the state, deletion of merged partials."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import Gauge

from kafka_client.error_codes import is_lost
from kafka_client.errors import RESTORING, Fatal
from kafka_client.topic_guard import difference, gone
from observability import logs
from observability.waits import WAITS
from streaming.engine.loop import Loop, Punctuator
from streaming.engine.state import StateStore

REQUEST_SECONDS = 10.0
# A re-created topic loses positions at once anyway; this detects one that grew back to the old offsets.
GUARD_SECONDS = 15.0
# While Kafka is away.
GUARD_AGAIN_SECONDS = 1.0
# The group removes a worker that left after the session timeout: 5 s, or what another broker has configured.
ASSIGNED_SECONDS = 30.0
# Partials are small and deleted in segments, so often is of no use.
DELETE_SECONDS = 60.0
# Estimates, which change slowly.
MEASURE_SECONDS = 10.0

GROUPS = Gauge("electrored_state_groups", "Groups in the state, estimated", ["flow", "partition"])
BYTES = Gauge("electrored_state_bytes", "Size of the local store of the state", ["flow", "partition"])

_log = logs.get(__name__)


class TopicGuard(Punctuator):
    """Stops the loop when a topic was re-created or resized: offsets and owners would mean something else."""

    def __init__(self, admin: AdminClient, topics: Mapping[str, tuple[str, int]], reporter: str = "") -> None:
        """`topics`: id and partition count by name, as the generation's record has them.

        While Kafka does not answer, that is reported as a wait of `reporter`.
        """
        self._admin = admin
        self._topics = topics
        self._reporter = reporter
        self._ask_at = 0.0
        self._asked: Mapping[str, Future[Any]] = {}

    def check(self) -> None:
        """Query and wait; for the start. Raises Fatal for a topic that is not the one of the record."""
        self._ask()
        for future in self._asked.values():
            future.exception()
        self._judge()

    def punctuate(self, loop: Loop) -> None:
        if self._asked:
            if all(future.done() for future in self._asked.values()):
                self._judge()
        elif time.monotonic() >= self._ask_at:
            self._ask()

    def close(self, loop: Loop) -> None:
        WAITS.end("kafka", self._reporter)

    def _ask(self) -> None:
        self._ask_at = time.monotonic() + GUARD_SECONDS
        self._asked = self._admin.describe_topics(
            TopicCollection(list(self._topics)), request_timeout=REQUEST_SECONDS
        )

    def _judge(self) -> None:
        asked, self._asked = self._asked, {}
        answered = True
        for name, future in asked.items():
            wanted = self._topics[name]
            try:
                description = future.result()
            except KafkaException as error:
                if is_lost(error.args[0]):
                    raise gone(name, error.args[0]) from error
                reason = error.args[0].str()
                _log.warning("topics are checked again", topic=name, reason=reason)
                WAITS.begin("kafka", f"Kafka does not describe topic {name}: {reason}", self._reporter)
                self._ask_at, answered = time.monotonic() + GUARD_AGAIN_SECONDS, False
                continue
            current = str(description.topic_id), len(description.partitions)
            if changed := difference(name, wanted, current):
                raise Fatal(f"{changed}; {RESTORING}")
        if answered:
            WAITS.end("kafka", self._reporter)


class Assignment(Punctuator):
    """Reports a loop that has nothing to read, because other members have all partitions or the group assigns none."""

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id
        self._since: float | None = None

    def punctuate(self, loop: Loop) -> None:
        if loop.has_partitions:
            if self._since is not None:
                self.close(loop)
            return
        now = time.monotonic()
        self._since = self._since or now
        if now > self._since + ASSIGNED_SECONDS:
            WAITS.begin(
                "partitions",
                f"the group {self._group_id} gives this process no partition of {loop.step.input_topic}: other members "
                "have them all (`kafka-consumer-groups.sh --describe --members` lists them)",
                loop.flow,
            )

    def close(self, loop: Loop) -> None:
        self._since = None
        WAITS.end("partitions", loop.flow)


class StateSize(Punctuator):
    """Metrics of the size of each state partition."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._measured_at = 0.0
        self._flow = ""
        self._shown: frozenset[int] = frozenset()

    def punctuate(self, loop: Loop) -> None:
        if time.monotonic() - self._measured_at < MEASURE_SECONDS:
            return
        self._measured_at = time.monotonic()
        self._leave(self._shown - loop.ready)
        self._flow, self._shown = loop.flow, loop.ready
        for partition in loop.ready:
            size = self._store.size(partition)
            GROUPS.labels(loop.flow, partition).set(size.groups)
            BYTES.labels(loop.flow, partition).set(size.bytes)

    def close(self, loop: Loop) -> None:
        self._leave(self._shown)

    def _leave(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            GROUPS.remove(self._flow, str(partition))
            BYTES.remove(self._flow, str(partition))


class Deletion(Punctuator):
    """Deletes what merge has committed from its input, which has no other reader."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._asked_at = time.monotonic()
        self._asked: Mapping[TopicPartition, Future[Any]] = {}
        self._deleted: dict[int, int] = {}

    def punctuate(self, loop: Loop) -> None:
        if self._asked:
            self._judge()
        elif time.monotonic() - self._asked_at >= DELETE_SECONDS:
            self._ask(loop)

    def _ask(self, loop: Loop) -> None:
        self._asked_at = time.monotonic()
        # The accepted progress: committed, so no reader goes back behind it.
        wanted = {partition: loop.step.progress(partition).next_offset for partition in loop.ready}
        places = [
            TopicPartition(loop.step.input_topic, partition, offset)
            for partition, offset in wanted.items()
            if offset > self._deleted.get(partition, 0)
        ]
        if places:
            self._asked = self._admin.delete_records(places, request_timeout=REQUEST_SECONDS)

    def _judge(self) -> None:
        if not all(future.done() for future in self._asked.values()):
            return
        asked, self._asked = self._asked, {}
        for place, future in asked.items():
            try:
                self._deleted[place.partition] = int(future.result().low_watermark)
            except KafkaException as error:
                _log.warning("partials are deleted later", topic=place.topic, reason=error.args[0].str())
