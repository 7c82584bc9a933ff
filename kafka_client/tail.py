"""Incremental reads of a topic of one partition, from its beginning or near its end up to its current end."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client.reader import Reader
from kafka_client.registry import Registry
from kafka_client.writer_schemas import Undecodable
from observability import logs

AT_ONCE = 10_000
# A read that takes longer fails; the next one resumes.
WAIT_SECONDS = 5.0

_log = logs.get(__name__)


class Tail:
    """Each record once over all reads; commits nothing and joins no group.

    A record whose handling raised is returned again by the next read. One that does not decode is skipped and counted
    in `unreadable`; while the registry is down, reads fail. With `last`, it begins so many offsets before the end.
    """

    def __init__(
        self, settings: KafkaSettings, topic: Topic, group_id: str, *, last: int | None = None
    ) -> None:
        self._topic = topic
        self._last = last
        self._codec = Registry(settings).reader(load(topic.schema))
        # It stays open, mostly at the end.
        self._reader = Reader(settings, group_id, topic.name, timeout_seconds=WAIT_SECONDS, fetch_wait_ms=500)
        # The next offset to return; the client may have fetched more.
        self._position: int | None = None
        self._is_there = False
        self.unreadable = 0

    def read(self) -> Iterator[tuple[bytes, object]]:
        """Keys and decoded values up to the current end; None for a tombstone.

        Raises KafkaException, and the errors of the registry's client.
        """
        low, end = self._reader.bounds()
        if self._position is None:
            self._position = low if self._last is None else max(low, end - self._last)
        if not self._is_there:
            # The last read ended early: seek back to the records that it did not return.
            self._reader.seek({0: self._position})
        self._is_there = False
        for messages in self._reader.read_to({0: end}, limit=AT_ONCE):
            for message in messages:
                offset, value = message.offset() or 0, message.value()
                try:
                    decoded = None if value is None else self._codec.decode(value)
                except Undecodable as problem:
                    self.unreadable += 1
                    _log.warning(
                        "a record is skipped", topic=self._topic.name, offset=offset, reason=str(problem)
                    )
                else:
                    yield message.key() or b"", decoded
                self._position = offset + 1
        # Now behind the last transaction's marker.
        self._position = self._reader.positions[0]
        self._is_there = True

    def close(self) -> None:
        self._reader.close()
