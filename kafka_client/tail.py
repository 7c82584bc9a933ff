"""Following a topic of one partition from its beginning, or near its end, as far as it has been written by now."""

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
# An answer that takes longer is none; the next look asks on.
WAIT_SECONDS = 5.0

_log = logs.get(__name__)


class Tail:
    """Each record once, also over several looks; nothing is committed, and no group is joined.

    A record whose handling raised is given again by the next look. One that is no record of the topic's is skipped
    and counted in `unreadable`; that the registry is away says nothing about a record, so it is waited for.
    With `last`, it begins so many offsets before what is the end then.
    """

    def __init__(
        self, settings: KafkaSettings, topic: Topic, group_id: str, *, last: int | None = None
    ) -> None:
        self._topic = topic
        self._last = last
        self._codec = Registry(settings).reader(load(topic.schema))
        self._reader = Reader(settings, group_id, topic.name)
        # What is next to be given; the client may have been asked for more.
        self._position: int | None = None
        self._is_there = False
        self.unreadable = 0

    def read(self) -> Iterator[tuple[bytes, object]]:
        """Keys and decoded values up to the end of now; None for what was deleted.

        Raises KafkaException, and what the registry's client raises.
        """
        low, end = self._reader.bounds()
        if self._position is None:
            self._position = low if self._last is None else max(low, end - self._last)
        if not self._is_there:
            # What the client gave to a look that ended in the middle is gone: go back to it.
            self._reader.seek({0: self._position})
        self._is_there = False
        for messages in self._reader.read_to({0: end}, WAIT_SECONDS, AT_ONCE):
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
        # Behind the last transaction's marker.
        self._position = self._reader.positions[0]
        self._is_there = True

    def close(self) -> None:
        self._reader.close()
