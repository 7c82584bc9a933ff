"""A source's log read back: batches of values up to its end, and the greatest seq that it holds of the source.

An event begins with its source and its seq: both are read without decoding the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client import avro, clients
from kafka_client.errors import Refused
from kafka_client.offsets import EARLIEST, LATEST, listed
from kafka_client.reader import Reader
from kafka_client.registry import Codec, header
from kafka_client.writer_schemas import LostSchema, Undecodable
from observability import logs

_log = logs.get(__name__)

# Messages of one batch.
BATCH = 50_000
# A page of payments is one transaction: so many offsets of a partition hold its newest event.
LAST = 1_000
# A source counts from 1: its own seqs stay below, and only a foreign value comes near.
MOST_SEQ = 2**62
# How often a long reading is logged.
REPORT_SECONDS = 10.0
# Values, and the offsets behind them by partition.
Batch = tuple[list[bytes | None], dict[int, int]]


def ends(
    settings: KafkaSettings,
    topic: str,
    partitions: int,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[int, int]:
    """Where each partition ends now; what any transaction before has written is below. Raises KafkaException.

    With READ_COMMITTED it is where the oldest transaction began that is open.
    """
    return _offsets(settings, topic, partitions, LATEST, isolation)


def begins(settings: KafkaSettings, topic: str, partitions: int) -> dict[int, int]:
    """Where each partition begins now. Raises KafkaException."""
    return _offsets(settings, topic, partitions, EARLIEST)


def _offsets(
    settings: KafkaSettings,
    topic: str,
    partitions: int,
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[int, int]:
    places = [TopicPartition(topic, number) for number in range(partitions)]
    found = listed(clients.admin(settings), places, spec, isolation)
    return {place.partition: offset for place, offset in found.items()}


def batches(
    settings: KafkaSettings,
    source: str,
    topic: str,
    offsets: Mapping[int, int],
    until: Mapping[int, int],
) -> Iterator[Batch]:
    """What is committed from the offsets on and below the ends. Raises KafkaException."""
    with Reader(settings, f"sources.{source}", topic) as reader:
        reader.seek({number: offsets.get(number, 0) for number in until})
        for messages in reader.read_to(until, limit=BATCH):
            yield [message.value() for message in messages], dict(reader.positions)


@dataclass(frozen=True)
class GreatestSeq:
    """The greatest seq of a source's events in the log below the offsets; 0 without one."""

    seq: int = 0
    offsets: Mapping[int, int] = field(default_factory=dict)


def greatest_seq(
    settings: KafkaSettings, codec: Codec, source: str, topic: Topic, known: GreatestSeq
) -> GreatestSeq:
    """Read on from `known`, at first the whole log, in flat memory. Raises KafkaException.

    Raises Refused if the log has lost its beginning: the greatest seq may have been there.
    """
    partitions = _partitions(settings, topic)
    until = ends(settings, topic.name, partitions)
    if all(at <= known.offsets.get(number, 0) for number, at in until.items()):
        return known
    first = begins(settings, topic.name, partitions)
    if any(at > known.offsets.get(number, 0) for number, at in first.items()):
        raise Refused(
            f"{topic.name} has lost its beginning, and with it perhaps the greatest seq of {source}, above which it "
            "has to continue: consumers drop every seq that is not above their last. Restore that topic and "
            "source-positions from a backup, or start anew with empty topics"
        )
    whole = sum(until.values())
    _log.info("reading the log for the greatest seq of the source", source=source, offsets=whole)
    reported_at = time.monotonic()
    for values, reached in batches(settings, source, topic.name, known.offsets, until):
        known = GreatestSeq(max(known.seq, *_seqs(codec, source, values), 0), reached)
        if time.monotonic() > reported_at + REPORT_SECONDS:
            reported_at = time.monotonic()
            _log.info("reading the log", source=source, offsets=sum(reached.values()), of=whole)
    return known


def last(settings: KafkaSettings, codec: Codec, source: str, topic: Topic) -> int:
    """The greatest seq of the source among the last offsets of each partition; 0 without one.

    In a log of one source, whose seqs ascend, it is the greatest of all. Does not wait for open transactions.
    """
    until = ends(settings, topic.name, _partitions(settings, topic), IsolationLevel.READ_COMMITTED)
    begin = {number: max(0, end - LAST) for number, end in until.items()}
    read = batches(settings, source, topic.name, begin, until)
    return max((seq for values, _ in read for seq in _seqs(codec, source, values)), default=0)


def _partitions(settings: KafkaSettings, topic: Topic) -> int:
    return clients.describe_topics(settings, [topic.name])[topic.name][1]


class OwnEvents:
    """Recognises the events of a source among the values of a log."""

    def __init__(self, codec: Codec, source: str) -> None:
        self._codec = codec
        self._source = source
        self._header = header(codec.schema_id)
        self._mark = avro.string(source.encode())
        self.prefix = self._header + self._mark

    def event(self, value: bytes | None) -> dict[str, Any] | None:
        """The event if it is the source's; most of others' are recognised by their first field, without decoding them.

        Raises LostSchema only for an event of the source.
        """
        if value is None or (value.startswith(self._header) and not value.startswith(self.prefix)):
            return None
        try:
            event: dict[str, Any] = self._codec.decode(value)
        except LostSchema:
            if self._codec.own(value)["source"] == self._source:
                raise
            return None
        except Undecodable:
            # The pipelines make a dead letter of it.
            return None
        return event if event["source"] == self._source else None

    def seq(self, value: bytes | None) -> int | None:
        """The event's seq if it is the source's, also where the registry lost its id: a higher one is always safe."""
        if value is not None and value.startswith(self.prefix):
            return avro.read_long(value, len(self.prefix))
        try:
            event = self.event(value)
        except LostSchema:
            event = self._codec.own(value or b"")
        # A foreign writer may have used any type that is compatible with ours.
        return event["seq"] if event is not None and isinstance(event["seq"], int) else None


def _seqs(codec: Codec, source: str, values: Iterable[bytes | None]) -> Iterator[int]:
    """Of those values that are events of the source. What is no event has no seq for the pipelines either."""
    own, greatest = OwnEvents(codec, source), 0
    for value in values:
        seq = own.seq(value)
        if seq is None:
            continue
        if seq <= MOST_SEQ:
            yield seq
        greatest = max(greatest, seq)
    if greatest > MOST_SEQ:
        _log.error(
            "an event is skipped: its seq is above any that a source assigns, and only sources may write there",
            source=source,
            seq=greatest,
        )
