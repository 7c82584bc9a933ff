"""Active generation's state → public topic: the current truth, exactly once, whoever is promoted.

Positions are the committed offsets of a consumer group that is named after the promotion number, written in the
same transactions as the records. A promotion without positions is first reconciled: the public topic is compared
with the new generation's whole state, what differs is written, what only the former had is deleted; the last of
these transactions holds the positions. So a crash in the middle compares again and writes only what is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from hashlib import blake2b
from itertools import islice

from contracts import datasets
from contracts.kafka import admin, committed_offsets, transactional_producer
from contracts.registry import Registry
from contracts.schemas import load
from contracts.settings import KafkaSettings, ResultsDbSettings
from observability import logs
from observability.lineage.runs import UNTOLD, Facts, Teller
from observability.metrics import EVENTS
from streaming import lineage as lineage_of
from streaming.engine.errors import Abortable
from streaming.engine.offsets import beginnings, ends
from streaming.engine.schemas import PatientRegistry
from streaming.engine.step import OutRecord
from streaming.engine.transactions import Transactions
from streaming.sink.followed import Active, active
from streaming.sink.following import Follower, connect, follow, retried
from streaming.sink.state_topic import Batch, Reader, check

# A transaction of about 50 ms: readers of the public topic wait for no more than that.
TRANSACTION_RECORDS = 5_000
# From the beginning of one transaction to that of the next; the first after quiet goes at once. Nothing of ours reads
# the public topics, so under load they come a little later than the API and leave the machine to it.
PAUSE_SECONDS = 0.5

_log = logs.get(__name__)


class Publisher:
    """The public topic of one pipeline for as long as one promotion lasts."""

    def __init__(self, kafka: KafkaSettings, registry: Registry, shown: Active) -> None:
        self._kafka = kafka
        self._shown = shown
        self._followed = shown.generation
        pipeline = self._followed.pipeline
        self._name = f"{pipeline.name}.publisher"
        self._output = pipeline.output
        schema = load(self._output.schema)
        self._fields = [field["name"] for field in schema["fields"]]
        self._public = registry.codec(self._output.subject, schema)
        self._state = registry.codec(f"{self._followed.topic}-value", pipeline.state_schema())
        self._admin = admin(kafka)
        self._written = 0

    def facts(self) -> Facts:
        """How much it published; may be asked from any thread."""
        return Facts(rows={datasets.topic(self._output): self._written})

    def run(self, stop: threading.Event) -> None:
        """Publish until told to stop. Raises Fatal when fenced by another publisher, or when a person has to look."""
        retried(partial(check, self._kafka, self._followed), stop)
        # First of all: it fences a predecessor, so that its last transaction is decided when positions are read.
        transactions = Transactions(lambda: transactional_producer(self._kafka, self._name), self._name)
        group_id = f"{self._name}.{self._shown.promotion_number}"
        with closing(transactions), Reader(self._kafka, self._followed.topic, group_id) as reader:
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
        _log.info("publishing", generation=str(self._followed), promotion=self._shown.promotion_number)
        while not stop.is_set():
            messages = reader.take()
            began = time.monotonic()
            totals = Batch.of(messages).totals
            if totals:
                records = [self._record(key, value) for key, value in totals.items()]
                transactions.commit(records, self._offsets(reader.positions), self._group(reader))
                EVENTS.labels(self._name).inc(len(records))
                self._written += len(records)
                stop.wait(max(0.0, began + PAUSE_SECONDS - time.monotonic()))
            reader.show_lag(self._name)

    def _positions(self, reader: Reader) -> dict[int, int] | None:
        """Stable committed offsets of this promotion; None before it was reconciled."""
        partitions = range(self._followed.partitions)
        positions = committed_offsets(reader.consumer, self._followed.topic, partitions)
        return positions if len(positions) == self._followed.partitions else None

    def _reconcile(self, transactions: Transactions, reader: Reader, stop: threading.Event) -> dict[int, int]:
        """Make the public topic say what the state says, and give the positions up to which that holds."""
        public = self._published(stop)
        _log.info("comparing", generation=str(self._followed), published=len(public))
        positions: dict[int, int] = {}
        written = 0
        differences = self._differences(public, reader, positions, stop)
        while records := list(islice(differences, TRANSACTION_RECORDS)):
            transactions.commit(records, {}, self._group(reader))
            written += len(records)
        transactions.commit([], self._offsets(positions), self._group(reader))
        _log.info("compared", generation=str(self._followed), written=written)
        return positions

    def _differences(
        self, public: dict[bytes, bytes], reader: Reader, positions: dict[int, int], stop: threading.Event
    ) -> Iterator[OutRecord]:
        """What has to be written, a state partition at a time; `public` loses what the state has."""
        state_ends = ends(self._admin, self._followed.topic, range(self._followed.partitions))
        starts = beginnings(self._admin, self._followed.topic, range(self._followed.partitions))
        for partition, start in starts.items():
            reader.assign({partition: start})
            state = Batch()
            for messages in reader.read_to(state_ends, stop):
                state.add(messages)
            positions |= reader.positions
            for key, value in state.totals.items():
                record = self._record(key, value)
                shown = public.pop(record.key or b"", None)
                if shown != (None if record.value is None else _digest(record.value)):
                    yield record
        yield from (OutRecord(self._output.name, None, key, None) for key in public)

    def _published(self, stop: threading.Event) -> dict[bytes, bytes]:
        """A digest of each value that the public topic shows now."""
        shown: dict[bytes, bytes] = {}
        partitions = range(self._output.partitions)
        public_ends = ends(self._admin, self._output.name, partitions)
        with Reader(self._kafka, self._output.name, f"{self._name}.compare") as reader:
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
        """A total as outsiders see it; without a value where it is not there for them."""
        pipeline = self._followed.pipeline
        _, total = self._state.decode(value)
        shown = pipeline.public(total)
        encoded = None if shown is None else self._public.encode({name: shown[name] for name in self._fields})
        return OutRecord(self._output.name, None, pipeline.public_key(key, total), encoded)

    def _offsets(self, positions: dict[int, int]) -> dict[tuple[str, int], int]:
        return {(self._followed.topic, partition): offset for partition, offset in positions.items()}

    def _group(self, reader: Reader) -> object:
        return reader.consumer.consumer_group_metadata()


def _digest(value: bytes) -> bytes:
    return blake2b(value, digest_size=16).digest()


def run(
    kafka: KafkaSettings, results: ResultsDbSettings, stop: threading.Event, lineage: Teller = UNTOLD
) -> None:
    """Publish every pipeline's active generation, following promotions, until told to stop."""
    engine = connect(results, "electrored-publisher")
    registry = PatientRegistry(kafka, stop)

    def publisher(shown: Active) -> Follower:
        def run(stop: threading.Event) -> None:
            made = Publisher(kafka, registry, shown)
            followed = shown.generation
            job = partial(lineage_of.publisher, followed.pipeline, followed.number)
            with lineage.told(job, made.facts):
                made.run(stop)

        return run

    def wanted() -> dict[Active, Follower]:
        with engine.connect() as connection:
            return {shown: publisher(shown) for shown in active(connection).values()}

    follow(wanted, stop)
    engine.dispose()
