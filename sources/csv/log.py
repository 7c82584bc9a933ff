"""The source's own events, read back from `sales-events`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.schema_registry.error import SchemaRegistryError

from contracts.registry import HEADER_BYTES, Registry, Unreachable, header
from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import Topic
from sources import avro
from sources.csv.rows import EPOCH, MICROSECOND
from sources.errors import Interrupted
from sources.ledger import meaning, registry_answers
from sources.log import batches, ends

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
        try:
            return ends(self._settings, self.topic.name, self._partitions)
        except KafkaException as error:
            raise meaning(error) from error

    def events(self, offsets: dict[int, int]) -> Iterator[Events]:
        """The source's events from the offsets on, up to where the log ends now, with the offsets behind them."""
        read = batches(self._settings, self._source, self.topic.name, offsets, self.ends())
        try:
            for values, reached in read:
                yield [event for value in values if (event := self._event(value)) is not None], reached
        except KafkaException as error:
            raise meaning(error) from error

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
