"""Following a topic of one partition from its beginning, or near its end, as far as it has been written by now."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client.clients import consumer
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
        self._consumer = consumer(settings, group_id, subscribed=False)
        # What is next to be given; the client may have been asked for more.
        self._position: int | None = None
        self._is_there = False
        self.unreadable = 0

    def read(self) -> Iterator[tuple[bytes, object]]:
        """Keys and decoded values up to the end of now; None for what was deleted.

        Raises KafkaException, and what the registry's client raises.
        """
        place = TopicPartition(self._topic.name, 0)
        low, end = self._consumer.get_watermark_offsets(place, timeout=WAIT_SECONDS)
        if self._position is None:
            self._position = low if self._last is None else max(low, end - self._last)
        if not self._is_there:
            # What the client gave to a look that ended in the middle is gone: go back to it.
            self._position = max(self._position, low)
            self._consumer.assign([TopicPartition(self._topic.name, 0, self._position)])
        self._is_there = True
        while self._position < end:
            # `consume` waits for all it may take: wait for one, then take what is there.
            first = self._consumer.poll(WAIT_SECONDS)
            if first is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{self._topic.name} is not read on"))
            self._is_there = False
            for message in (first, *self._consumer.consume(AT_ONCE, 0)):
                offset, error, value = message.offset() or 0, message.error(), message.value()
                if error is None:
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
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Behind the last transaction's marker.
                    self._position = max(self._position, offset)
                elif not error.retriable():
                    raise KafkaException(error)
            self._is_there = True

    def close(self) -> None:
        self._consumer.close()
