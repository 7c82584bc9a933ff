"""The CSV source: its position store, topics and sale index, and the transaction that moves all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts.schemas import load
from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import DEAD_LETTERS, SALES_EVENTS, SOURCE_POSITIONS, Topic
from kafka_client.registry import Registry
from observability import metrics
from sources.csv.changes import Plan
from sources.csv.own_events import SOURCE, Log, encoded
from sources.csv.records import Bad
from sources.csv.sale_index import SaleIndex
from sources.csv.validate import EPOCH, MICROSECOND
from sources.events_topic import EventsTopic
from sources.position_store import (
    DeadLetters,
    FileRecord,
    PositionStore,
    Record,
    SourceOffset,
    registry_answers,
)

_events = metrics.EVENTS.labels(SOURCE)


@dataclass(frozen=True)
class Topics:
    """Where the source writes to."""

    events: Topic = SALES_EVENTS
    positions: Topic = SOURCE_POSITIONS
    dead_letters: Topic = DEAD_LETTERS


def utc_now() -> datetime:
    return datetime.now(UTC)


class Source:
    """The only writer of the source while it is open. The frontier is held at unfinished files."""

    def __init__(
        self,
        kafka: KafkaSettings,
        results: ResultsDbSettings,
        topics: Topics,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._clock = clock
        self._events = EventsTopic(kafka, topics.events)
        own, others = f"sources.{SOURCE}", (topics.dead_letters,)
        self._store = PositionStore(kafka, SOURCE, own, topics.positions, topics.events, others)
        self.index = SaleIndex(results)

    def __enter__(self) -> Source:
        """1. fence a predecessor  2. read the position  3. check the topic  4. catch up the index."""
        try:
            self._store.open()
            with registry_answers():
                events = self._topics.events
                self._codec = Registry(self._kafka).codec(events.subject, load(events.schema))
            room = self._store.room(self._topics.dead_letters)
            self._dead_letters = DeadLetters(self._kafka, self._topics.dead_letters, room)
            topic_id, partitions = self._events.identity()
            self._position = self._store.position or SourceOffset(
                self._store.next_seq, None, {"topic": topic_id, "partitions": partitions, "recorded": 0}
            )
            known = self._position.detail
            self._events.check(
                (known["topic"], known["partitions"]), "Start anew with empty topics", (topic_id, partitions)
            )
            self._log = Log(self._kafka, self._topics.events, self._codec, topic_id, partitions)
            self.index.catch_up(self._log, self._position.next_seq)
            if self._store.position is None:
                # Otherwise a run without files would leave reading the log again to the next one.
                self._move(None)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()
        self.index.close()

    @property
    def files(self) -> dict[str, FileRecord]:
        """Every file that was ever entered, by hash."""
        return self._store.files

    @property
    def next_seq(self) -> int:
        return self._position.next_seq

    @property
    def most_row_bytes(self) -> int:
        """The largest row whose event the topic takes, by its texts: numbers, and what Avro adds, are in the rest."""
        return self._store.room(self._topics.events)

    def hold(self) -> datetime:
        """Hold the frontier, then return the time: no window up to it becomes final before `release`.

        What is recorded at that time is after every frontier that was published.
        """
        if self._position.frontier is None:
            self._move(self._recordable())
        return self._recordable()

    def _recordable(self) -> datetime:
        after: int = self._position.detail["recorded"] + 1
        return max(self._clock(), EPOCH + after * MICROSECOND)

    def release(self) -> None:
        """Release the frontier."""
        if self._position.frontier is not None:
            self._move(None)

    def enter(self, entry: FileRecord) -> None:
        """Write a file's entry; one that is being taken holds the frontier just before its rows are recorded."""
        self._move(
            entry.entered_at - MICROSECOND if entry.state == "TAKING" else None, (entry,), entry.entered_at
        )

    def _move(
        self, frontier: datetime | None, files: Iterable[FileRecord] = (), recorded_at: datetime | None = None
    ) -> None:
        newest = max(frontier or EPOCH, recorded_at or EPOCH)
        recorded = max(self._position.detail["recorded"], (newest - EPOCH) // MICROSECOND)
        detail = {**self._position.detail, "recorded": recorded}
        position = SourceOffset(self._position.next_seq, frontier, detail)
        self._store.write(position, {}, files=files)
        self._position = position

    def encode(self, plan: Plan, recorded_at: datetime) -> list[Record]:
        """The records of a plan's events, from the next seq on."""
        return encoded(self._codec, plan.events, self.next_seq, recorded_at)

    def dead_letters(self, entry: FileRecord, bad: Iterable[Bad]) -> list[Record]:
        """Records of rows that cannot be taken; named by content and line, so that reading again doubles none."""
        return [
            self._dead_letters.record(
                f"{SOURCE}/{entry.sha256}/0/{one.line}",
                f"{SOURCE}/{entry.name}",
                one.line,
                f"line {one.line}: {one.reason}",
                one.raw,
            )
            for one in bad
        ]

    def write(
        self, plan: Plan, events: list[Record], dead: list[Record], entry: FileRecord, *, is_last: bool
    ) -> None:
        """Events, dead letters, position and the file's entry in one Kafka transaction; then the index follows.

        Only the last one releases the frontier: the events still to come have the same recorded_at.
        """
        frontier = None if is_last else self._position.frontier
        position = SourceOffset(self.next_seq + len(events), frontier, self._position.detail)
        records = {self._topics.events.name: events, self._topics.dead_letters.name: dead}
        self._store.write(position, records, files=(entry,))
        changed = plan.changed(self.next_seq)
        self._position = position
        self.index.apply(changed, position.next_seq)
        _events.inc(len(events))

    def note_ends(self) -> None:
        """Store the current ends in the index, so that the next catch-up is short."""
        self.index.note_ends(self._log.ends())
