"""The CSV source in the log: its ledger, its topics, its cache; and the transaction that moves all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from contracts.schemas import load
from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import DEAD_LETTERS, SALES_EVENTS, SOURCE_POSITIONS, Topic
from kafka_client.errors import Refused
from kafka_client.registry import Registry
from observability import metrics
from sources.csv.changes import Plan
from sources.csv.encoding import Encoder
from sources.csv.own_events import Log
from sources.csv.records import Bad
from sources.csv.sale_index import SaleIndex
from sources.csv.validate import EPOCH, MICROSECOND
from sources.position_store import (
    DeadLetters,
    FileRecord,
    PositionStore,
    Record,
    SourceOffset,
    registry_answers,
)
from sources.postgres.events import EventsTopic

SOURCE = "csv"
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
    """The only writer of the source while it is open. The frontier is held at what is not finished."""

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
        self._ledger = PositionStore(kafka, SOURCE, own, topics.positions, topics.events, others)
        self.taken = SaleIndex(results)

    def __enter__(self) -> Source:
        """1. fence a predecessor  2. read the position  3. check the topic  4. catch the cache up."""
        try:
            self._ledger.open()
            with registry_answers():
                schema_id = Registry(self._kafka).register(
                    self._topics.events.subject, load(self._topics.events.schema)
                )
            self._encoder = Encoder(schema_id, SOURCE)
            room = self._ledger.room(self._topics.dead_letters)
            self._dead_letters = DeadLetters(self._kafka, self._topics.dead_letters, room)
            topic_id, partitions = self._events.identity()
            self._position = self._ledger.position or SourceOffset(
                self._ledger.next_seq, None, {"topic": topic_id, "partitions": partitions, "recorded": 0}
            )
            self._check_topic(topic_id, partitions)
            self._log = Log(self._kafka, self._topics.events, SOURCE, topic_id, partitions)
            self.taken.catch_up(self._log, self._position.next_seq)
            if self._ledger.position is None:
                # Or a run that finds no file would leave it to the next one to read the log again.
                self._move(None)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()
        self.taken.close()

    def _check_topic(self, topic_id: str, partitions: int) -> None:
        known = self._position.detail
        if (topic_id, partitions) != (known["topic"], known["partitions"]):
            raise Refused(
                f"the topic {self._topics.events.name} was {known['topic']} with {known['partitions']} partitions "
                f"and is {topic_id} with {partitions}: what the files said before is not in it, or elsewhere. "
                "Start anew with empty topics"
            )

    @property
    def files(self) -> dict[str, FileRecord]:
        """Every file that was ever entered, by hash."""
        return self._ledger.files

    @property
    def next_seq(self) -> int:
        return self._position.next_seq

    @property
    def most_row_bytes(self) -> int:
        """The largest row whose event the topic takes, by its texts: numbers, and what Avro adds, are in the rest."""
        return self._ledger.room(self._topics.events)

    def hold(self) -> datetime:
        """Hold the frontier, and only then say what time it is: no window up to it is called final before.

        What is recorded at the time given is after every frontier that was published.
        """
        if self._position.frontier is None:
            self._move(self._recordable())
        return self._recordable()

    def _recordable(self) -> datetime:
        after: int = self._position.detail["recorded"] + 1
        return max(self._clock(), EPOCH + after * MICROSECOND)

    def release(self) -> None:
        """Hold nothing back any more."""
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
        self._ledger.write(position, {}, files=files)
        self._position = position

    def encode(self, plan: Plan, recorded_at: datetime) -> list[Record]:
        """The records of a plan's events, from the next seq on."""
        micros = (recorded_at - EPOCH) // MICROSECOND
        values = self._encoder.encode(plan.events, self.next_seq, micros)
        keys: list[Any] = plan.events["sale_id"].cast(pl.Binary).to_list()
        return list(zip(keys, values, strict=True))

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
        """Events, dead letters, position and the file's entry in one Kafka transaction; then the cache follows.

        Only the last one lets the frontier go: what is still to come has the same recorded_at.
        """
        frontier = None if is_last else self._position.frontier
        position = SourceOffset(self.next_seq + len(events), frontier, self._position.detail)
        records = {self._topics.events.name: events, self._topics.dead_letters.name: dead}
        self._ledger.write(position, records, files=(entry,))
        changed = plan.changed(self.next_seq)
        self._position = position
        self.taken.apply(changed, position.next_seq)
        _events.inc(len(events))

    def note_ends(self) -> None:
        """Shorten the next catching up."""
        self.taken.note_ends(self._log.ends())
