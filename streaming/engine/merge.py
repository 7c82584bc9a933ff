"""merge: adds partials to the totals of their groups, and writes the changed totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kafka_client import latency_header
from kafka_client.errors import ALIEN, Fatal
from kafka_client.registry import HEADER_BYTES, header
from streaming.engine.blocks import attempt, read_zigzag, zigzag
from streaming.engine.columns.totals import ColumnTotals
from streaming.engine.interpreters import GroupInterpreter, NoGroups, PartialGroups, StateStore
from streaming.engine.pipeline import Pipeline
from streaming.engine.progress import Progress
from streaming.engine.rows.totals import RowTotals
from streaming.engine.step import Assigned, Message, Output, OutRecord
from streaming.engine.windows import from_micros, to_micros

WATERMARK_KEY = b"watermark"
# Partials of so many groups are merged as rows, more as columns; measured, see decision 45.
MOST_ROWS = 80
# Branches of the state topic's union.
_TOTAL, _WATERMARK = zigzag(0), zigzag(1)


@dataclass(frozen=True)
class MergeTopics:
    """What merge reads and writes. `inputs`: partitions of all that is combined; their watermarks arrive in band."""

    partials_topic: str
    partials_schema_id: int
    state_topic: str
    state_schema_id: int
    inputs: int


class Merge:
    """Partials + totals → totals. The state partition has the number of the partials partition."""

    name = "merge"

    def __init__(self, pipeline: Pipeline, store: StateStore, topics: MergeTopics) -> None:
        self.input_topic = topics.partials_topic
        self._store = store
        self._topics = topics
        self._assigned = Assigned()
        self._partials: list[PartialGroups] = []
        self._totals: dict[int, list[tuple[bytes, bytes]]] = {}
        self._oldest_micros: int | None = None
        prefix = header(topics.state_schema_id) + _TOTAL
        self._rows, self._columns = RowTotals(pipeline, prefix), ColumnTotals(pipeline, prefix)

    def begin(self, partition: int, progress: Progress) -> None:
        self._assigned.begin(partition, progress)

    def forget(self, partition: int) -> None:
        self._assigned.forget(partition)

    def progress(self, partition: int) -> Progress:
        return self._assigned.accepted(partition)

    def pending(self) -> bool:
        return bool(self._assigned.changed)

    def watermark(self, partition: int, at: datetime) -> None:
        raise Fatal("watermarks reach merge in band, not from the sources")

    def add(self, messages: Sequence[Message]) -> int:
        """Raises Fatal for a value that combine of this generation did not write: the topic has another producer."""
        # Per record, but a record is one commit of combine, not an event.
        events = 0
        for message in messages:
            watermarks, count, body = self._parsed(message)
            if count:
                self._partials.append((message.partition(), count, body))
                events += count
            self._advance(message, watermarks, count)
        self._oldest_micros = latency_header.older(self._oldest_micros, latency_header.oldest(messages))
        return events

    def _advance(self, message: Message, watermarks: Mapping[str, datetime], count: int) -> None:
        before = self._assigned.current(message.partition())
        if message.offset() < before.next_offset:
            # Partials carry no seq: the same one twice could not be distinguished from two.
            raise Fatal(
                f"{self.input_topic} partition {message.partition()} gave offset {message.offset()} again, "
                f"everything below {before.next_offset} was added"
            )
        newest = dict(before.watermarks)
        for source, at in watermarks.items():
            newest[source] = max(at, newest.get(source, at))
        self._assigned.advance(
            message.partition(),
            replace(
                before, next_offset=message.offset() + 1, watermarks=newest, events=before.events + count
            ),
        )

    def take(self) -> Output:
        """Raises Fatal as `add` does."""
        if self._partials:
            self._totals = self._merged()
        records = [
            OutRecord(self._topics.state_topic, partition, key, value)
            for partition, totals in self._totals.items()
            for key, value in totals
        ]
        changed = self._assigned.changed
        for partition, progress in changed.items():
            records += self._watermark_record(partition, progress)
        written = {self._topics.state_topic: len(records)}
        return Output(records, changed, self._oldest_micros, written=written)

    def accept(self) -> None:
        for partition, totals in self._totals.items():
            self._store.put_many(partition, dict(totals))
        self._assigned.accept()
        self._drop()

    def reset(self) -> None:
        self._assigned.reset()
        self._drop()

    def _drop(self) -> None:
        self._partials.clear()
        self._totals.clear()
        self._oldest_micros = None

    def _parsed(self, message: Message) -> tuple[dict[str, datetime], int, bytes]:
        """Watermarks, count of groups, and the groups' bytes, of one record of the partials topic."""
        parsed = attempt(lambda: self._parse(message.value()))
        if isinstance(parsed, BaseException):
            place = f"{self.input_topic} partition {message.partition()} offset {message.offset()}"
            raise Fatal(f"{place} is not a partial of this generation: {ALIEN}") from parsed
        return parsed

    def _parse(self, value: bytes | None) -> tuple[dict[str, datetime], int, bytes]:
        if value is None or value[:HEADER_BYTES] != header(self._topics.partials_schema_id):
            raise ValueError("another header")
        watermarks: dict[str, datetime] = {}
        count, at = read_zigzag(value, HEADER_BYTES)
        while count:
            for _ in range(count):
                partition, at = read_zigzag(value, at)
                micros, at = read_zigzag(value, at)
                watermarks[str(partition)] = from_micros(micros)
            count, at = read_zigzag(value, at)
        count, at = read_zigzag(value, at)
        if count < 0:
            raise ValueError("not one block of groups")
        return watermarks, count, value[at : len(value) - 1] if count else b""

    def _merged(self) -> dict[int, list[tuple[bytes, bytes]]]:
        """New totals of the groups that have partials, by partition."""
        groups = sum(count for _, count, _ in self._partials)
        interpreter: GroupInterpreter = self._rows if groups <= MOST_ROWS else self._columns
        try:
            return interpreter.totals(self._partials, self._store)
        except NoGroups as error:
            raise Fatal(f"{self.input_topic} holds groups that combine never writes: {ALIEN}") from error

    def _watermark_record(self, partition: int, progress: Progress) -> list[OutRecord]:
        """The minimum over all inputs, if it moved; none while an input has no watermark."""
        reached = self._minimum(progress)
        if reached is None or reached == self._minimum(self._assigned.accepted(partition)):
            return []
        value = header(self._topics.state_schema_id) + _WATERMARK + zigzag(to_micros(reached))
        return [OutRecord(self._topics.state_topic, partition, WATERMARK_KEY, value)]

    def _minimum(self, progress: Progress) -> datetime | None:
        if len(progress.watermarks) < self._topics.inputs:
            return None
        return min(progress.watermarks.values())
