"""Following a state topic from stored offsets: the newest value of every key, and how far it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, cast

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from contracts.kafka import TIMEOUT_SECONDS, admin, consumer, describe_topics
from contracts.settings import KafkaSettings
from observability import logs
from streaming.engine.errors import Fatal
from streaming.sink.followed import Followed

# A group's key always holds a separator, so this is none.
WATERMARK_KEY = b"watermark"
# One transaction's worth when catching up: about a tenth of a second of work for the database.
MAX_RECORDS = 20_000
# What a consumer reports when the position or the topic it reads is no longer there.
_LOST = {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
}

_log = logs.get(__name__)


@dataclass
class Batch:
    """What was read since the last one; of several values of a key, the last."""

    totals: dict[bytes, bytes] = field(default_factory=dict)
    watermarks: dict[int, bytes] = field(default_factory=dict)
    records: int = 0

    def add(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        if key is None or value is None:
            raise Fatal(f"a record without key or value in partition {partition}: not of our making")
        if key == WATERMARK_KEY:
            self.watermarks[partition] = value
        else:
            self.totals[key] = value
        self.records += 1


class StateReader:
    """A consumer with every partition of one state topic assigned by hand.

    `positions` holds the offset to read next, by partition. It moves past transaction markers too, because
    the end of a partition is taken from the event that reports it.
    """

    def __init__(self, kafka: KafkaSettings, followed: Followed, group_id: str) -> None:
        self._kafka = kafka
        self._followed = followed
        self.positions: dict[int, int] = {}
        self.consumer: Consumer = consumer(kafka, group_id, subscribed=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.consumer.close()

    def start(self, positions: Mapping[int, int]) -> None:
        """Read on from the given offsets. Raises Fatal if the topic is not the one of the generation."""
        self.check()
        self.positions = dict(positions)
        self.consumer.assign([TopicPartition(self._followed.topic, p, o) for p, o in self.positions.items()])

    def check(self) -> None:
        """Raise Fatal if the topic was re-created or resized since: its offsets would mean something else."""
        followed = self._followed
        try:
            topic_id, partitions = describe_topics(self._kafka, [followed.topic])[followed.topic]
        except KafkaException as error:
            if error.args[0].code() in _LOST:
                raise Fatal(f"state topic {followed.topic} is gone: {error.args[0].str()}") from error
            raise
        if (topic_id, partitions) != (followed.topic_id, followed.partitions):
            raise Fatal(
                f"state topic {followed.topic} was re-created: id {topic_id} with {partitions} partitions, "
                f"the generation has {followed.topic_id} with {followed.partitions}; replay the pipeline"
            )

    def take(self, timeout_seconds: float) -> Batch:
        """Wait for the first record, then all that has arrived by now; empty if nothing came in time."""
        batch = Batch()
        messages = self.consumer.consume(1, timeout_seconds)
        while messages:
            for message in messages:
                error = message.error()
                partition, offset = cast(int, message.partition()), cast(int, message.offset())
                if error is None:
                    batch.add(partition, message.key(), message.value())
                    self.positions[partition] = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    self.positions[partition] = max(self.positions[partition], offset)
                else:
                    self._failed(error)
            if batch.records >= MAX_RECORDS:
                break
            messages = self.consumer.consume(MAX_RECORDS - batch.records, 0)
        return batch

    def lag(self) -> int:
        """Offsets up to the end of the log as the last fetch saw it; markers count, so it is a bound."""
        behind = 0
        for partition, position in self.positions.items():
            known = TopicPartition(self._followed.topic, partition)
            _, high = self.consumer.get_watermark_offsets(known, cached=True)
            behind += max(0, high - position)
        return behind

    def _failed(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in _LOST:
            raise Fatal(f"{self._followed}: the position in {self._followed.topic} is lost: {error.str()}")
        _log.warning("reading is retried", topic=self._followed.topic, reason=error.str())


def ends(kafka: KafkaSettings, topic: str, partitions: int) -> dict[int, int]:
    """The end of every partition, open transactions included: reading up to it misses nothing committed."""
    end = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    wanted = {TopicPartition(topic, partition): end for partition in range(partitions)}
    # Held until the answers are there: a client that is dropped takes its requests with it.
    client = admin(kafka)
    found = client.list_offsets(
        wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=TIMEOUT_SECONDS
    )
    return {partition.partition: int(future.result().offset) for partition, future in found.items()}
