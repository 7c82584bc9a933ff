"""Reading a state topic from stored offsets: the newest value of every key, and the positions."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Self, cast

from confluent_kafka import KafkaException, Message, TopicPartition

from contracts.datasets import Dataset
from contracts.settings import KafkaSettings
from kafka_client import latency_header
from kafka_client.clients import admin, consumer, describe_topics
from kafka_client.error_codes import is_lost
from kafka_client.errors import ALIEN, RESTORING, Fatal
from kafka_client.reader import take
from kafka_client.registry import Codec
from kafka_client.topic_guard import difference, gone
from kafka_client.writer_schemas import LostSchema, Undecodable
from observability import logs
from observability.metrics import LAG
from observability.progress_report import ProgressReport
from observability.waits import WAITS, Cancelled
from streaming.engine.merge import WATERMARK_KEY
from streaming.engine.opened import OpenTransactions
from streaming.sink.targets import SinkTarget

# A re-created topic is detected by its offsets at once, or by this check of its id; so is an outage of Kafka.
CHECK_SECONDS = 10.0
# One transaction's worth when catching up: about a tenth of a second of work for the database.
MAX_RECORDS = 20_000
# An empty wait this long ends to see whether to stop.
POLL_SECONDS = 0.5

_log = logs.get(__name__)


@dataclass
class Batch:
    """Records of a state topic; of several values of a key, the last. And the oldest event that any of them counts."""

    totals: dict[bytes, bytes] = field(default_factory=dict)
    watermarks: dict[int, bytes] = field(default_factory=dict)
    oldest_micros: int | None = None

    @classmethod
    def of(cls, messages: Iterable[Message]) -> Self:
        batch = cls()
        batch.add(messages)
        return batch

    def add(self, messages: Iterable[Message]) -> None:
        # One a transaction and partition.
        carriers: list[Message] = []
        for message in messages:
            if message.headers():
                carriers.append(message)
            key, value = message.key(), message.value()
            if key is None or value is None:
                raise Fatal(
                    f"{message.topic()} holds a record without key or value, which merge never writes"
                )
            if key == WATERMARK_KEY:
                self.watermarks[cast(int, message.partition())] = value
            else:
                self.totals[key] = value
        if carriers:
            oldest = latency_header.oldest(cast(Sequence[latency_header.Carrier], carriers))
            self.oldest_micros = latency_header.older(self.oldest_micros, oldest)


def decoded(codec: Codec, topic: str, value: bytes) -> dict[str, Any]:
    """The fields of a total or of a watermark. Raises Fatal if it is neither."""
    try:
        _, fields = codec.decode(value)
    except LostSchema as error:
        raise Fatal(str(error)) from error
    except Undecodable as error:
        raise Fatal(f"{topic} holds what merge never writes ({error}): {ALIEN}") from error
    return dict(fields)


@dataclass
class Progress:
    """Progress of a reader of a state topic: records read and written, and where it would resume."""

    partitions: int
    read: int = 0
    written: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    watermarks: dict[int, datetime] = field(default_factory=dict)

    def note(self, watermarks: dict[int, datetime]) -> None:
        """Everything up to them is written."""
        # Replaced, not changed: another thread reads the old or the new one.
        self.watermarks = self.watermarks | watermarks

    def report(self, step: str, output: Dataset) -> ProgressReport:
        """The lineage report; thread-safe. The watermark is that of all partitions."""
        marks = list(self.watermarks.values())
        return ProgressReport(
            watermark=min(marks) if len(marks) == self.partitions else None,
            counts={step: {"records": self.read}},
            checkpoints={step: dict(self.positions)},
            rows={output: self.written},
        )


class Reader:
    """A consumer whose partitions are assigned by hand.

    `positions` holds the offset to read next, by partition. It moves past transaction markers too, because
    the end of a partition is taken from the event that reports it.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, group_id: str, loop: str | None = None) -> None:
        """`loop`: the name under which its polls are reported as turns; its group if left out."""
        self.topic = topic
        self.positions: dict[int, int] = {}
        self._loop = loop or group_id
        self._opened = OpenTransactions(kafka, partial(admin, kafka), group_id, group_id)
        self.consumer = consumer(kafka, group_id, subscribed=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        WAITS.leave(self._loop)
        self._opened.close()
        self.consumer.close()

    def assign(self, positions: Mapping[int, int]) -> None:
        """Read from the given offsets."""
        self.positions = dict(positions)
        self.consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in positions.items()])

    def take(self, timeout_seconds: float = POLL_SECONDS) -> list[Message]:
        """Wait for the first record, then all that has arrived by now; empty if nothing came in time."""
        WAITS.turn(self._loop)
        self._opened.look((self.topic, partition) for partition in self.positions)
        try:
            return take(self.consumer, self.positions, timeout_seconds, MAX_RECORDS)
        except KafkaException as error:
            raise Fatal(f"the position in {self.topic} is lost: {error.args[0].str()}") from error

    def read_to(self, ends: Mapping[int, int], stop: threading.Event) -> Iterator[list[Message]]:
        """Committed records until every assigned partition's position has reached its end."""
        while any(position < ends[partition] for partition, position in self.positions.items()):
            if stop.is_set():
                raise Cancelled
            yield self.take()

    def show_lag(self, flow: str) -> None:
        """Offsets up to the end of the log as the last fetch saw it; markers count, so it is a bound."""
        for partition, position in self.positions.items():
            known = TopicPartition(self.topic, partition)
            _, high = self.consumer.get_watermark_offsets(known, cached=True)
            LAG.labels(flow, partition).set(max(0, high - position))

    def hide_lag(self, flow: str) -> None:
        """Remove the lag series of a topic that is not read any more."""
        for partition in self.positions:
            with suppress(KeyError):
                LAG.remove(flow, str(partition))


def check(kafka: KafkaSettings, target: SinkTarget) -> None:
    """Raise Fatal if the state topic is not the one that was created: its offsets would mean something else."""
    try:
        current = describe_topics(kafka, [target.topic])[target.topic]
    except KafkaException as error:
        if is_lost(error.args[0]):
            raise gone(target.topic, error.args[0]) from error
        raise
    if changed := difference(target.topic, (target.topic_id, target.partitions), current):
        raise Fatal(f"{changed}; {RESTORING}")
