"""Committed records of a topic from given offsets on, without a group: to restore, look up, or follow.

A position passes transaction markers and aborted records by the offset of the partition EOF event: without it a reader
would wait for ever behind the last marker.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import Self, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from contracts.settings import KafkaSettings
from kafka_client.clients import TIMEOUT_SECONDS, consumer, is_forbidden
from kafka_client.error_codes import is_end, is_lost, is_unreadable
from observability import logs

# Messages of one poll: enough that a poll costs nothing, few enough to be in memory.
BATCH = 10_000

_log = logs.get(__name__)


def take(
    client: Consumer, positions: MutableMapping[int, int], timeout_seconds: float, limit: int = BATCH
) -> list[Message]:
    """Wait for the first message, then take all that have arrived; advances `positions`, by partition.

    Empty if nothing came in time, or nothing but the end of a partition. Raises KafkaException for a partition that
    cannot be read on; any other error is logged, and librdkafka goes on by itself.
    """
    # `consume` waits for as many as it may return: wait for one, then take what has arrived.
    messages = client.consume(1, timeout_seconds)
    if messages:
        messages += client.consume(limit - 1, 0)
    return advance(messages, positions)


def advance(messages: Iterable[Message], positions: MutableMapping[int, int]) -> list[Message]:
    """The records among the messages; advances `positions` behind all of them. Raises as `take`."""
    records = []
    for message in messages:
        failure = message.error()
        partition, offset = cast(int, message.partition()), message.offset() or 0
        if failure is None:
            records.append(message)
            positions[partition] = offset + 1
        elif is_end(failure):
            positions[partition] = max(positions.get(partition, 0), offset)
        elif is_lost(failure) or is_forbidden(failure) or is_unreadable(failure):
            raise KafkaException(failure)
        else:
            _log.warning("reading is retried", topic=message.topic(), reason=failure.str())
    return records


class Reader:
    """Reads one topic; `positions` are the next offsets, by partition. `group_id` names the client in Kafka's logs."""

    def __init__(
        self,
        settings: KafkaSettings,
        group_id: str,
        topic: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        fetch_wait_ms: int = 20,
    ) -> None:
        """`timeout_seconds`: of each request, and without progress. `fetch_wait_ms`: how long the broker holds back an
        empty fetch, behind which the end of a partition shows; short for what is read once, long for what stays open.
        """
        self._topic = topic
        self._timeout_seconds = timeout_seconds
        overrides = {"fetch.wait.max.ms": fetch_wait_ms}
        self._client = consumer(settings, group_id, subscribed=False, overrides=overrides)
        self.positions: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def bounds(self, partition: int = 0) -> tuple[int, int]:
        """The first offset and the last stable offset. Raises KafkaException."""
        place = TopicPartition(self._topic, partition)
        return self._client.get_watermark_offsets(place, self._timeout_seconds)

    def seek(self, offsets: Mapping[int, int]) -> None:
        """Read from these offsets; if the log begins later, from its beginning. Raises KafkaException."""
        self.positions = {number: max(offset, self.bounds(number)[0]) for number, offset in offsets.items()}
        places = [TopicPartition(self._topic, number, offset) for number, offset in self.positions.items()]
        self._client.assign(places)

    def read_to(
        self, ends: Mapping[int, int], patience_seconds: float | None = None, limit: int = BATCH
    ) -> Iterator[list[Message]]:
        """Records until each position has reached its end; a batch may go beyond it.

        Raises KafkaException, of code _TIMED_OUT where no partition moves within `patience_seconds`.
        """
        patience_seconds = self._timeout_seconds if patience_seconds is None else patience_seconds
        deadline = time.monotonic() + patience_seconds
        while behind := {number: end for number, end in ends.items() if self.positions[number] < end}:
            before = dict(self.positions)
            records = take(self._client, self.positions, max(0.0, deadline - time.monotonic()), limit)
            if records:
                yield records
            if self.positions != before:
                deadline = time.monotonic() + patience_seconds
            elif time.monotonic() > deadline:
                message = (
                    f"topic {self._topic} stands at {before}, before {behind}: is a transaction open there?"
                )
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, message))
