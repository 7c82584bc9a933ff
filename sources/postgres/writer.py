"""Halves of events → one Kafka transaction with the position, written while the next batch is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

from contracts.datasets import KAFKA, Dataset
from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.times import EPOCH
from contracts.topics import Topic
from kafka_client.registry import Registry
from observability import metrics
from observability.progress_report import ProgressReport
from sources.position_store import DeadLetters, PositionStore, Range, Record, SourceOffset, registry_answers
from sources.postgres.capture_state import CaptureState
from sources.postgres.rows import MAX_BYTES, ChangeEvent, Encoder, as_json
from sources.postgres.stream import TransactionChanges

SOURCE = "postgres"
_MICROSECOND = timedelta(microseconds=1)
_events = metrics.EVENTS.labels("capture")


@dataclass(frozen=True)
class Topics:
    """Where capture writes to."""

    events: Topic
    positions: Topic
    dead_letters: Topic


@dataclass
class Batch:
    """Records of one Kafka transaction, and the seq after them."""

    seq: int
    events: list[Record] = field(default_factory=list)
    dead: list[Record] = field(default_factory=list)


class Writer:
    """Has at most one transaction under way, in a thread of its own; everything else is the caller's thread.

    A batch builds on the one before it before that is committed. That is safe because a failure ends the session:
    the next one begins with the stored position.
    """

    def __init__(
        self, kafka: KafkaSettings, topics: Topics, store: PositionStore, table: str, written: int = 0
    ) -> None:
        self._topics = topics
        self._store = store
        self._table = table
        with registry_answers():
            self._schema_id = Registry(kafka).register(topics.events.subject, load(topics.events.schema))
        self._kafka = kafka
        self._encoder: Encoder
        self._dead_letters: DeadLetters
        self._thread = ThreadPoolExecutor(1, "writer")
        self._under_way: Future[None] | None = None
        self._next_seq = 1
        # Events that are in the log, of the sessions before too.
        self.written = written
        # As submitted, not as committed.
        self.state: CaptureState
        self.frontier = 0

    def start(self, position: SourceOffset, state: CaptureState) -> None:
        """Go on from the position. The position store is open, so the topics' limits are known."""
        most = min(MAX_BYTES, self._store.room(self._topics.events))
        self._encoder = Encoder(self._schema_id, SOURCE, most)
        room = self._store.room(self._topics.dead_letters)
        self._dead_letters = DeadLetters(self._kafka, self._topics.dead_letters, room)
        self.state = state
        self._next_seq = position.next_seq
        self.frontier = 0 if position.frontier is None else (position.frontier - EPOCH) // _MICROSECOND

    def report(self) -> ProgressReport:
        """The progress report; empty before the start. Thread-safe."""
        if self._next_seq == 1 and not self.frontier:
            return ProgressReport()
        return ProgressReport(
            watermark=EPOCH + self.frontier * _MICROSECOND if self.frontier else None,
            counts={SOURCE: {"events": self._next_seq - 1}},
            checkpoints={SOURCE: {0: self.state.place.lsn}},
            rows={Dataset(KAFKA, (self._topics.events.name,)): self.written},
        )

    @property
    def is_busy(self) -> bool:
        return self._under_way is not None

    def changes(self, transactions: Sequence[TransactionChanges]) -> Batch:
        """Events of the stream: recorded when they were committed, and always after the frontier."""
        batch = Batch(self._next_seq)
        for transaction in transactions:
            self._encode(
                batch,
                transaction.events,
                max(transaction.begin.committed_at, self.frontier + 1),
                transaction.begin.lsn,
            )
        return batch

    def rows(self, events: Iterable[ChangeEvent]) -> Batch:
        """Events of a snapshot's rows: recorded when they were sold."""
        batch = Batch(self._next_seq)
        self._encode(batch, events, None, self.state.place.lsn)
        return batch

    def _encode(self, batch: Batch, events: Iterable[ChangeEvent], recorded_at: int | None, lsn: int) -> None:
        batch.seq, refused = self._encoder.encode(events, recorded_at, batch.seq, batch.events)
        for dead in refused:
            reversal, values = dead.event
            # It takes a seq of its own, so that its key is never used again.
            key = f"{self._table}/0/{lsn}/{batch.seq}"
            reason = f"{'reversal' if reversal else 'sale'}: {dead.reason}"
            batch.dead.append(self._dead_letters.record(key, self._table, lsn, reason, as_json(values)))
            batch.seq += 1

    def write(self, batch: Batch, state: CaptureState, frontier: int, ranges: Iterable[Range] = ()) -> None:
        """Begin a transaction; waits for the one before. Raises what that one raised."""
        self.settle()
        done = state.phase == "done" and self.state.phase != "done"
        position = SourceOffset(batch.seq, EPOCH + frontier * _MICROSECOND, state.to_json())
        self.state, self.frontier, self._next_seq = state, frontier, batch.seq
        self._under_way = self._thread.submit(self._commit, batch, position, tuple(ranges), done)

    def _commit(self, batch: Batch, position: SourceOffset, ranges: tuple[Range, ...], done: bool) -> None:
        records = {self._topics.events.name: batch.events, self._topics.dead_letters.name: batch.dead}
        self._store.write(position, records, ranges, forget_ranges=done)
        _events.inc(len(batch.events))
        self.written += len(batch.events)

    def settle(self) -> None:
        """Wait until the transaction under way is committed. Raises what it raised."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def close(self) -> None:
        """Wait for the writer thread, so that the position store is not closed under it."""
        self._thread.shutdown()
