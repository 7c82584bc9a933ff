"""The source's own events, read back from `sales-events`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec
from confluent_kafka.schema_registry.error import SchemaRegistryError

from contracts import kafka
from contracts.registry import HEADER_BYTES, Registry, Unreachable, header
from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import Topic
from sources import avro
from sources.csv.rows import EPOCH, MICROSECOND
from sources.errors import Interrupted, Refused
from sources.ledger import meaning, registry_answers

# Messages that are looked at together, and whose events are one database transaction of who reads them.
BATCH = 50_000
# Some of the source's events, and the offsets behind them by partition.
Events = tuple[list[dict[str, Any]], dict[int, int]]


class Log:
    """The source's own events in `sales-events`."""

    def __init__(
        self, settings: KafkaSettings, topic: Topic, source: str, topic_id: str, partitions: int
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self._settings = settings
        self._partitions = partitions
        with registry_answers():
            self._codec = Registry(settings).codec(topic.subject, load(topic.schema))
        self._source = source
        self._own = header(self._codec.schema_id)
        self._mark = avro.string(source.encode())

    def ends(self) -> dict[int, int]:
        """Where each partition ends now; what any transaction before has written is below."""
        places = [TopicPartition(self.topic.name, number) for number in range(self._partitions)]
        # Named, because its answer would never come if the client went before.
        client = kafka.admin(self._settings)
        futures = client.list_offsets(
            {place: OffsetSpec.latest() for place in places},  # type: ignore[no-untyped-call]
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=kafka.TIMEOUT_SECONDS,
        )
        try:
            return {place.partition: int(future.result().offset) for place, future in futures.items()}
        except KafkaException as error:
            raise meaning(error) from error

    def events(self, offsets: dict[int, int]) -> Iterator[Events]:
        """The source's events from the offsets on, up to where the log ends now, with the offsets behind them."""
        consumer = self._consumer()
        try:
            yield from self._until_ends(consumer, offsets)
        except KafkaException as error:
            raise meaning(error) from error
        finally:
            consumer.close()

    def _until_ends(self, consumer: Consumer, offsets: dict[int, int]) -> Iterator[Events]:
        ends, reached = self.ends(), {}
        for number in ends:
            low, _ = consumer.get_watermark_offsets(
                TopicPartition(self.topic.name, number), kafka.TIMEOUT_SECONDS
            )
            reached[number] = offsets.get(number, 0)
            if low > reached[number]:
                raise Refused(
                    f"{self.topic.name} partition {number} begins at offset {low}, and the rows that were taken are "
                    f"needed from {reached[number]} on: the records between were deleted, so a row that was taken "
                    "would count again. Restore the topic from a backup, see docs/runbooks/TopicNotKept.md"
                )
        consumer.assign([TopicPartition(self.topic.name, number, at) for number, at in reached.items()])
        while any(reached[number] < end for number, end in ends.items()):
            values = []
            first = consumer.poll(kafka.TIMEOUT_SECONDS)
            if first is None:
                raise Interrupted(f"{self.topic.name} stands still at {reached} of {ends}")
            for message in (first, *consumer.consume(BATCH, 0)):
                error = message.error()
                number, offset = cast(int, message.partition()), message.offset() or 0
                if error is None:
                    values.append(message.value())
                    reached[number] = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Its offset is past markers and what was aborted.
                    reached[number] = max(reached[number], offset)
                elif not error.retriable():
                    raise KafkaException(error)
            yield [event for value in values if (event := self._event(value)) is not None], dict(reached)

    def _event(self, value: bytes | None) -> dict[str, Any] | None:
        """The event if it is the source's; the others are told by their first field, without decoding them."""
        if value is None:
            return None
        if value.startswith(self._own) and not value.startswith(self._mark, HEADER_BYTES):
            return None
        try:
            event: dict[str, Any] = self._codec.decode(value)
        except SchemaRegistryError as error:
            if error.http_status_code != 404:
                raise Interrupted(f"the schema registry: {error}") from error
            return None
        except Unreachable as error:
            raise Interrupted(f"the schema registry: {error}") from error
        except (ValueError, EOFError, IndexError):
            # Nothing of ours: what is written here is made by the encoder.
            return None
        if event["source"] != self._source:
            return None
        event["sold_at"] = (event["sold_at"] - EPOCH) // MICROSECOND
        event["amount"] = int(event["amount"].scaleb(4))
        return event

    def _consumer(self) -> Consumer:
        return kafka.consumer(
            self._settings, f"sources.{self._source}", subscribed=False, overrides={"fetch.wait.max.ms": 20}
        )
