"""The source's own events, as they are written to `sales-events` and read back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl
from confluent_kafka import KafkaException

from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client import avro
from kafka_client.errors import Refused
from kafka_client.registry import Codec, header
from kafka_client.writer_schemas import LostSchema
from sources.csv.validate import EPOCH, MICROSECOND
from sources.log import OwnEvents, batches, begins, ends
from sources.position_store import Record, meaning, registry_answers

# A batch of the source's events, and the next offsets by partition.
Events = tuple[list[dict[str, Any]], dict[int, int]]
SOURCE = "csv"


def encoded(codec: Codec, events: pl.DataFrame, first_seq: int, recorded_at: datetime) -> list[Record]:
    """The records of `changes.Plan.events`: their seqs go up from `first_seq`, and a reversal negates."""
    head = header(codec.schema_id) + avro.string(SOURCE.encode())
    recorded = avro.long((recorded_at - EPOCH) // MICROSECOND)
    records = []
    for seq, (sale_id, sold_at, *row, quantity, amount, currency, reversal) in enumerate(
        events.iter_rows(), first_seq
    ):
        key, sign = sale_id.encode(), -1 if reversal else 1
        value = b"".join(
            (
                head,
                avro.long(seq),
                avro.string(key),
                avro.string(b"REVERSAL" if reversal else b"SALE"),
                avro.long(sold_at),
                recorded,
                *[avro.string(text.encode()) for text in row],
                avro.long(sign * quantity),
                avro.decimal(sign * amount),
                avro.string(currency.encode()),
            )
        )
        records.append((key, value))
    return records


class Log:
    """The source's own events in `sales-events`."""

    def __init__(
        self, settings: KafkaSettings, topic: Topic, codec: Codec, topic_id: str, partitions: int
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self._settings = settings
        self._partitions = partitions
        self._own = OwnEvents(codec, SOURCE)

    def ends(self) -> dict[int, int]:
        """The end offset of each partition; what any earlier transaction wrote is below."""
        try:
            return ends(self._settings, self.topic.name, self._partitions)
        except KafkaException as error:
            raise meaning(error) from error

    def events(self, offsets: dict[int, int]) -> Iterator[Events]:
        """The source's events from the offsets on, up to where the log ends now, with the offsets behind them."""
        self._refuse_a_gap(offsets)
        read = batches(self._settings, SOURCE, self.topic.name, offsets, self.ends())
        try:
            for values, reached in read:
                with registry_answers():
                    events = [event for value in values if (event := self._event(value)) is not None]
                yield events, reached
        except KafkaException as error:
            raise meaning(error) from error

    def _refuse_a_gap(self, offsets: dict[int, int]) -> None:
        try:
            first = begins(self._settings, self.topic.name, self._partitions)
        except KafkaException as error:
            raise meaning(error) from error
        for number, low in first.items():
            if low > (needed := offsets.get(number, 0)):
                raise Refused(
                    f"{self.topic.name} partition {number} begins at offset {low}, and the rows that were taken are "
                    f"needed from {needed} on: the records between were deleted, so a row that was taken would count "
                    "again. Restore the topic from a backup, see docs/runbooks/TopicNotKept.md"
                )

    def _event(self, value: bytes | None) -> dict[str, Any] | None:
        """The event if it is the source's. Raises Refused for one whose schema the registry lost."""
        try:
            event = self._own.event(value)
        except LostSchema as error:
            # Its rows would be taken once more.
            raise Refused(str(error)) from error
        if event is None:
            return None
        # A foreign writer may have used any types that are compatible with ours.
        if not isinstance(event["sold_at"], datetime) or not isinstance(event["amount"], Decimal):
            return None
        event["sold_at"] = (event["sold_at"] - EPOCH) // MICROSECOND
        event["amount"] = int(event["amount"].scaleb(4))
        return event
