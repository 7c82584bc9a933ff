"""Payment confirmations → events in Avro, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from contracts.times import EPOCH
from kafka_client import avro
from kafka_client.registry import header
from sources.position_store import Record
from sources.soap.confirmation import Confirmation

SOURCE = "soap"
_MICROSECOND = timedelta(microseconds=1)


class Encoder:
    """Encodes valid confirmations as events; one writer schema."""

    def __init__(self, schema_id: int) -> None:
        self._head = header(schema_id) + avro.string(SOURCE.encode())

    def encode(self, confirmations: Iterable[Confirmation], recorded_at: datetime, seq: int) -> list[Record]:
        """Key and value of each one's event, numbered from `seq`."""
        recorded = avro.long((recorded_at - EPOCH) // _MICROSECOND)
        records = []
        for number, confirmation in enumerate(confirmations, seq):
            sale_id = confirmation.sale_id.encode()
            value = b"".join(
                (
                    self._head,
                    avro.long(number),
                    avro.string(confirmation.payment_id.encode()),
                    avro.string(sale_id),
                    avro.decimal(int(confirmation.amount.scaleb(4))),
                    avro.string(confirmation.currency.encode()),
                    avro.string(confirmation.status.encode()),
                    avro.long((confirmation.confirmed_at - EPOCH) // _MICROSECOND),
                    recorded,
                )
            )
            records.append((sale_id, value))
        return records
