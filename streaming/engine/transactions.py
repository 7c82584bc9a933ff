"""The one wrapper around a transactional producer: one output, one transaction, one clear outcome.

An outcome is one of five: committed; `Abortable`, aborted on the broker too; `OutcomeUnknown`, the producer did not
return clearly and was replaced, so that the progress topic has to be read; `Fenced`, another process took over;
`Refused`, a record is too large for Kafka.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from kafka_client import latency_header
from kafka_client.clients import is_fenced
from kafka_client.error_codes import is_too_large
from kafka_client.errors import Abortable, Fatal, Fenced, OutcomeUnknown, Refused
from kafka_client.watchdog import watching
from observability import logs
from observability.metrics import TRANSACTION_SECONDS, TRANSACTIONS
from observability.waits import WAITS
from streaming.engine.step import OutRecord

# One call's wait for the broker; a broker that restarts is back in about 5 s.
CALL_SECONDS = 10.0
# Then a call is given up: longer than a leader election.
PATIENCE_SECONDS = 60.0
# Above it a producer that cannot send makes room before it takes more.
FULL_QUEUE_WAIT_SECONDS = 0.1

_OUTCOMES = ("committed", "aborted", "unknown", "fenced", "refused")

# What was delivered: next offset by (topic, partition).
Delivered = dict[tuple[str, int], int]

_log = logs.get(__name__)


class Transactions:
    """Exactly-once writes of one loop. `make_producer` gives a fresh producer with the loop's transactional id."""

    def __init__(self, make_producer: Callable[[], Producer], flow: str) -> None:
        self._make_producer = make_producer
        self._flow = flow
        # From 0 on, or an increase would not count the first.
        for outcome in _OUTCOMES:
            TRANSACTIONS.labels(flow, outcome)
        self._producer: Producer | None = self._open()

    def commit(
        self,
        records: Sequence[OutRecord],
        offsets: Mapping[tuple[str, int], int],
        group_metadata: object,
        oldest_micros: int | None = None,
        metadata: str = "",
    ) -> Delivered:
        """All records and the consumed offsets in one transaction; Kafka keeps `metadata` beside each offset.

        `oldest_micros` goes with the last record to each explicitly chosen partition: kafka_client/latency_header.py.
        Returns the offset after the last record that went to each explicitly chosen partition. Raises Abortable when
        it was aborted, OutcomeUnknown when no response came, Fenced when another process took over, Refused when a
        record is too large for Kafka.
        """
        producer = self._producer
        if producer is None:
            raise Fatal(f"{self._flow}: the producer was given up before; start a new process")
        started = time.perf_counter()
        consumed = [
            TopicPartition(topic, partition, offset, metadata)
            for (topic, partition), offset in offsets.items()
        ]
        delivered: Delivered = {}
        try:
            producer.begin_transaction()
            self._produce(producer, records, delivered, oldest_micros)
            # Never again after a time-out: by then the broker may have ended the transaction, and offsets that reach
            # it afterwards would be committed with the next one, without their records.
            self._retried(partial(producer.send_offsets_to_transaction, consumed, group_metadata), patience=0)
            self._retried(producer.commit_transaction)
        except KafkaException as error:
            if is_too_large(error.args[0]):
                raise self._too_large(records, error.args[0]) from error
            raise self._resolve(producer, error.args[0]) from error
        TRANSACTIONS.labels(self._flow, "committed").inc()
        TRANSACTION_SECONDS.labels(self._flow).observe(time.perf_counter() - started)
        return delivered

    def close(self) -> None:
        """Drop the producer; what it did not commit is aborted by its successor, or by the broker.

        Its own `close` would abort first, and wait for ever for a broker that is away.
        """
        WAITS.end("kafka", f"{self._flow}, transactions")
        if self._producer is not None:
            with watching(self._flow):
                self._producer.purge()
                self._producer = None

    def _produce(
        self,
        producer: Producer,
        records: Iterable[OutRecord],
        delivered: Delivered,
        oldest_micros: int | None,
    ) -> None:
        last: dict[tuple[str, int], OutRecord] = {}
        for record in records:
            if record.partition is None:
                _send(producer, record, None)
                continue
            # Within a partition order is kept, so the last delivery report suffices; a callback per record would cost.
            place = (record.topic, record.partition)
            if place in last:
                _send(producer, last[place], None)
            last[place] = record

        def note(error: KafkaError | None, message: Message) -> None:
            if error is None:
                delivered[str(message.topic()), int(message.partition() or 0)] = (
                    int(message.offset() or 0) + 1
                )

        for record in last.values():
            _send(producer, record, note, oldest_micros)

    def _retried(self, call: Callable[[float], None], patience: float = PATIENCE_SECONDS) -> None:
        """The call, retried while the error is retriable."""
        deadline = time.monotonic() + patience
        while True:
            try:
                with watching(self._flow):
                    call(CALL_SECONDS)
                WAITS.end("kafka", f"{self._flow}, transactions")
                return
            except KafkaException as error:
                failure: KafkaError = error.args[0]
                if not failure.retriable() or time.monotonic() > deadline:
                    raise
                _log.warning("transaction call is retried", flow=self._flow, reason=failure.str())
                detail = f"Kafka does not answer a transaction of {self._flow}: {failure.str()}"
                WAITS.begin("kafka", detail, f"{self._flow}, transactions")

    def _fenced(self, failure: KafkaError) -> Fenced:
        TRANSACTIONS.labels(self._flow, "fenced").inc()
        return Fenced(
            f"{self._flow}: the producer was fenced ({failure.str()}): another process took its transactional id, "
            "or the broker ended a transaction that ran out of time; a new process goes on from the progress topic"
        )

    def _too_large(self, records: Sequence[OutRecord], failure: KafkaError) -> Refused:
        """A retry would be refused again. The transaction stays open for the next producer, which aborts it."""
        TRANSACTIONS.labels(self._flow, "refused").inc()
        largest = max(records, key=_size)
        return Refused(
            f"{self._flow}: Kafka refuses what is too large ({failure.str()}): the largest record has "
            f"{_size(largest):,} bytes, for topic {largest.topic}; nothing of this transaction counts, and no restart "
            "helps before it is allowed there"
        )

    def _resolve(self, producer: Producer, failure: KafkaError) -> Exception:
        """End the producer's transaction; returns its outcome as an exception."""
        if is_fenced(failure):
            return self._fenced(failure)
        if failure.txn_requires_abort():
            try:
                self._retried(producer.abort_transaction)
            except KafkaException as error:
                failure = error.args[0]
                # Only now if the broker ended the transaction, or another producer took the id.
                if is_fenced(failure):
                    return self._fenced(failure)
            else:
                TRANSACTIONS.labels(self._flow, "aborted").inc()
                return Abortable(f"{self._flow}: {failure.str()}")
        TRANSACTIONS.labels(self._flow, "unknown").inc()
        self.close()
        self._producer = self._open()
        return OutcomeUnknown(f"{self._flow}: {failure.str()}")

    def _open(self) -> Producer:
        """A producer whose predecessor's transaction, if there was one, has an outcome that will not change."""
        producer = self._make_producer()
        try:
            self._retried(producer.init_transactions)
        except KafkaException as error:
            producer.purge()
            raise Fatal(f"{self._flow}: Kafka does not take the producer: {error.args[0].str()}") from error
        return producer


def _size(record: OutRecord) -> int:
    return len(record.key or b"") + len(record.value or b"")


def _send(
    producer: Producer,
    record: OutRecord,
    on_delivery: Callable[..., None] | None,
    oldest_micros: int | None = None,
) -> None:
    arguments: dict[str, Any] = {"key": record.key}
    if oldest_micros is not None:
        arguments["headers"] = latency_header.headers(oldest_micros)
    if record.partition is not None:
        arguments["partition"] = record.partition
    if on_delivery is not None:
        arguments["on_delivery"] = on_delivery
    while True:
        try:
            producer.produce(record.topic, record.value, **arguments)
            return
        except BufferError:
            producer.poll(FULL_QUEUE_WAIT_SECONDS)
