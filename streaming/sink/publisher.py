"""Active generation's state → public topic: the current totals, exactly once, across promotions.

Positions are the committed offsets of one consumer group, written in the same transactions as the records. Their
metadata is the id of the state topic that the public topic reflects. If that is another than the active
generation's, after a promotion or because the results database was restored to an earlier time, the public topic is
first compared with the generation's whole state: what differs is written, what only the former had is deleted. Each of
these transactions takes the id away and the last one sets it, so a crash in the middle compares again and writes only
what is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b
from itertools import islice

from contracts import datasets
from contracts.schemas import load
from contracts.settings import KafkaSettings, ResultsDbSettings
from kafka_client.clients import admin, committed, committed_offsets, transactional_producer
from kafka_client.errors import Abortable
from kafka_client.offsets import beginnings, ends
from kafka_client.registry import Registry
from lineage.emitter import NULL_EMITTER, Emitter
from observability import logs
from observability.metrics import EVENTS
from observability.progress_report import ProgressReport
from streaming import lineage as lineage_of
from streaming.engine.schemas import PatientRegistry
from streaming.engine.step import OutRecord
from streaming.engine.transactions import Transactions
from streaming.generations.following import ThreadTarget, supervise_threads
from streaming.results_db import connect, retried
from streaming.sink.state_topic import CHECK_SECONDS, Batch, Progress, Reader, check, decoded
from streaming.sink.targets import SinkTarget, active

# A transaction of about 50 ms: readers of the public topic wait for no more than that.
TRANSACTION_RECORDS = 5_000
# From the beginning of one transaction to that of the next; the first after a quiet time goes at once. The platform
# does not read the public topics, so under load they come a little later than the API.
PAUSE_SECONDS = 0.5
# Of the public topic. The group's offset there is 0 and means nothing; its metadata is the id of the state topic.
COMPARED = 0

_log = logs.get(__name__)


class Publisher:
    """The public topic of one pipeline for as long as a generation is active."""

    def __init__(self, kafka: KafkaSettings, registry: Registry, target: SinkTarget) -> None:
        self._kafka = kafka
        self._target = target
        pipeline = target.pipeline
        self._name = f"{pipeline.name}.publisher"
        self._output = pipeline.output
        schema = load(self._output.schema)
        self._fields = [field["name"] for field in schema["fields"]]
        self._public = registry.codec(self._output.subject, schema)
        self._state = registry.codec(f"{self._target.topic}-value", pipeline.state_schema())
        self._admin = admin(kafka)
        self._progress = Progress(target.partitions)

    def report(self) -> ProgressReport:
        """The progress; thread-safe."""
        return self._progress.report("publisher", datasets.topic(self._output))

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop`. Raises Fatal when fenced by another publisher, or for what needs a person."""
        retried(partial(check, self._kafka, self._target), stop)
        # First of all: it fences a predecessor, so that its last transaction is decided when positions are read.
        transactions = Transactions(lambda: transactional_producer(self._kafka, self._name), self._name)
        with closing(transactions), Reader(self._kafka, self._target.topic, self._name) as reader:
            while not stop.is_set():
                try:
                    self._publish(transactions, reader, stop)
                except Abortable as error:
                    _log.warning("publishing begins again from what is committed", reason=str(error))

    def _publish(self, transactions: Transactions, reader: Reader, stop: threading.Event) -> None:
        positions = retried(partial(self._positions, reader), stop)
        if positions is None:
            positions = self._reconcile(transactions, reader, stop)
        reader.assign(positions)
        self._progress.positions = dict(positions)
        _log.info("publishing", generation=str(self._target))
        check_at = time.monotonic() + CHECK_SECONDS
        while not stop.is_set():
            if time.monotonic() > check_at:
                retried(partial(check, self._kafka, self._target), stop)
                check_at = time.monotonic() + CHECK_SECONDS
            messages = reader.take()
            began = time.monotonic()
            batch = Batch.of(messages)
            if batch.totals:
                records = [self._record(key, value) for key, value in batch.totals.items()]
                self._commit(transactions, reader, records, reader.positions)
                EVENTS.labels(self._name).inc(len(records))
                self._progress.written += len(records)
                self._progress.positions = dict(reader.positions)
            self._progress.read += len(messages)
            self._note(batch.watermarks)
            if batch.totals:
                stop.wait(max(0.0, began + PAUSE_SECONDS - time.monotonic()))
            reader.show_lag(self._name)

    def _positions(self, reader: Reader) -> dict[int, int] | None:
        """The positions up to which the public topic reflects the state; None if it reflects another state topic."""
        compared = committed(reader.consumer, self._output.name, [COMPARED]).get(COMPARED)
        if compared is None or compared.metadata != self._target.topic_id:
            return None
        partitions = range(self._target.partitions)
        positions = committed_offsets(reader.consumer, self._target.topic, partitions)
        return positions if len(positions) == self._target.partitions else None

    def _reconcile(self, transactions: Transactions, reader: Reader, stop: threading.Event) -> dict[int, int]:
        """Bring the public topic to the state; returns the positions up to which it reflects it."""
        public = self._published(stop)
        _log.info("comparing", generation=str(self._target), published=len(public))
        positions: dict[int, int] = {}
        watermarks: dict[int, bytes] = {}
        written = 0
        differences = self._differences(public, reader, positions, watermarks, stop)
        while records := list(islice(differences, TRANSACTION_RECORDS)):
            self._commit(transactions, reader, records, None)
            written += len(records)
            EVENTS.labels(self._name).inc(len(records))
            self._progress.written += len(records)
        self._commit(transactions, reader, [], positions)
        self._note(watermarks)
        _log.info("compared", generation=str(self._target), written=written)
        return positions

    def _differences(
        self,
        public: dict[bytes, bytes],
        reader: Reader,
        positions: dict[int, int],
        watermarks: dict[int, bytes],
        stop: threading.Event,
    ) -> Iterator[OutRecord]:
        """What has to be written, a state partition at a time; `public` loses what the state has.

        `positions` and `watermarks` gain those up to which that holds.
        """
        state_ends = ends(self._admin, self._target.topic, range(self._target.partitions))
        starts = beginnings(self._admin, self._target.topic, range(self._target.partitions))
        for partition, start in starts.items():
            reader.assign({partition: start})
            state = Batch()
            for messages in reader.read_to(state_ends, stop):
                state.add(messages)
            positions |= reader.positions
            watermarks |= state.watermarks
            for key, value in state.totals.items():
                record = self._record(key, value)
                shown = public.pop(record.key or b"", None)
                if shown != (None if record.value is None else _digest(record.value)):
                    yield record
        yield from (OutRecord(self._output.name, None, key, None) for key in public)

    def _published(self, stop: threading.Event) -> dict[bytes, bytes]:
        """A digest of each value of the public topic now."""
        shown: dict[bytes, bytes] = {}
        partitions = range(self._output.partitions)
        public_ends = ends(self._admin, self._output.name, partitions)
        with Reader(self._kafka, self._output.name, f"{self._name}.compare", self._name) as reader:
            reader.assign(beginnings(self._admin, self._output.name, partitions))
            for messages in reader.read_to(public_ends, stop):
                for message in messages:
                    key, value = message.key() or b"", message.value()
                    if value is None:
                        shown.pop(key, None)
                    else:
                        shown[key] = _digest(value)
        return shown

    def _record(self, key: bytes, value: bytes) -> OutRecord:
        """The public record of a total; without a value if it is not published."""
        pipeline = self._target.pipeline
        total = decoded(self._state, self._target.topic, value)
        shown = pipeline.public(total)
        encoded = None if shown is None else self._public.encode({name: shown[name] for name in self._fields})
        return OutRecord(self._output.name, None, pipeline.public_key(key, total), encoded)

    def _note(self, watermarks: dict[int, bytes]) -> None:
        """Everything up to them is published."""
        marks = {
            partition: decoded(self._state, self._target.topic, value)["watermark"]
            for partition, value in watermarks.items()
        }
        self._progress.note(marks)

    def _commit(
        self,
        transactions: Transactions,
        reader: Reader,
        records: Sequence[OutRecord],
        positions: Mapping[int, int] | None,
    ) -> None:
        """Records with the positions up to which they reflect the state; without positions they mix two states."""
        # Each time, or Kafka deletes an offset that does not change after a week.
        offsets = {(self._output.name, COMPARED): 0}
        for partition, offset in (positions or {}).items():
            offsets[self._target.topic, partition] = offset
        group = reader.consumer.consumer_group_metadata()
        compared = "" if positions is None else self._target.topic_id
        transactions.commit(records, offsets, group, metadata=compared)


def _digest(value: bytes) -> bytes:
    return blake2b(value, digest_size=16).digest()


def run(
    kafka: KafkaSettings, results: ResultsDbSettings, stop: threading.Event, lineage: Emitter = NULL_EMITTER
) -> None:
    """Publish every pipeline's active generation, across promotions, until `stop`."""
    engine = connect(results, "electrored-publisher")
    registry = PatientRegistry(kafka, stop)

    def publisher(target: SinkTarget) -> ThreadTarget:
        def run(stop: threading.Event) -> None:
            publication = Publisher(kafka, registry, target)
            job = partial(lineage_of.publisher, target.pipeline, target.number)
            with lineage.run(job, publication.report):
                publication.run(stop)

        return run

    def wanted() -> dict[SinkTarget, ThreadTarget]:
        with engine.connect() as connection:
            return {target: publisher(target) for target in active(connection).values()}

    try:
        supervise_threads(wanted, stop)
    finally:
        engine.dispose()
