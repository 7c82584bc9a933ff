"""Following a compacted topic of one partition from its beginning, as far as it has been written by now."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from contracts.kafka import consumer
from contracts.registry import Registry
from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import Topic

AT_ONCE = 10_000
# An answer that takes longer is none; the next look asks on.
WAIT_SECONDS = 5.0


class Tail:
    """Each record once, also over several looks; nothing is committed, and no group is joined."""

    def __init__(self, settings: KafkaSettings, topic: Topic, group_id: str) -> None:
        self._topic = topic
        self._codec = Registry(settings).codec(topic.subject, load(topic.schema))
        self._consumer = consumer(settings, group_id, subscribed=False)
        self._consumer.assign([TopicPartition(topic.name, 0, OFFSET_BEGINNING)])
        self._position = 0

    def read(self) -> Iterator[tuple[bytes, object]]:
        """Keys and decoded values up to the end of now; None for what was deleted. Raises KafkaException."""
        place = TopicPartition(self._topic.name, 0)
        _, end = self._consumer.get_watermark_offsets(place, timeout=WAIT_SECONDS)
        while self._position < end:
            # `consume` waits for all it may take: wait for one, then take what is there.
            first = self._consumer.poll(WAIT_SECONDS)
            if first is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{self._topic.name} is not read on"))
            for message in (first, *self._consumer.consume(AT_ONCE, 0)):
                offset, error, value = message.offset() or 0, message.error(), message.value()
                if error is None:
                    self._position = offset + 1
                    yield message.key() or b"", None if value is None else self._codec.decode(value)
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Behind the last transaction's marker.
                    self._position = max(self._position, offset)
                elif not error.retriable():
                    raise KafkaException(error)

    def close(self) -> None:
        self._consumer.close()
