"""merge: adds partials to the totals of their groups, and writes the changed totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import numpy as np
import polars as pl

from kafka_client import latency_header
from kafka_client.errors import ALIEN, Fatal
from kafka_client.registry import HEADER_BYTES, header
from streaming.engine.blocks import Records, attempt, encode_rows, read_zigzag, zigzag
from streaming.engine.combine import group_keys
from streaming.engine.pipeline import Pipeline
from streaming.engine.progress import Progress
from streaming.engine.step import Assigned, Message, Output, OutRecord
from streaming.engine.windows import from_micros, to_micros

WATERMARK_KEY = b"watermark"
_PARTITION, _KEY = "_partition", "_key"
# Branches of the state topic's union.
_TOTAL, _WATERMARK = zigzag(0), zigzag(1)


class StateStore(Protocol):
    """Totals by group key, per state partition; values as in the state topic."""

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def put_many(self, partition: int, items: Mapping[bytes, bytes]) -> None: ...


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
        self._pipeline = pipeline
        self._store = store
        self._topics = topics
        self._assigned = Assigned()
        self._partials: list[pl.DataFrame] = []
        self._totals: dict[int, dict[bytes, bytes]] = {}
        self._oldest_micros: int | None = None
        self._groups = Records(pipeline.group_schema("Partial"))
        self._columns = [field.name for field in pipeline.fields]
        self._value_prefix = header(topics.state_schema_id) + _TOTAL

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
        bodies: list[bytes] = []
        counts: list[int] = []
        for message in messages:
            watermarks, count, body = self._parsed(message)
            bodies.append(body)
            counts.append(count)
            self._advance(message, watermarks, count)
        if sum(counts):
            partitions = np.repeat([message.partition() for message in messages], counts)
            frame = attempt(lambda: self._groups.read(len(partitions), b"".join(bodies)))
            if isinstance(frame, BaseException):
                raise Fatal(f"{self.input_topic} holds groups that combine never writes: {ALIEN}") from frame
            self._partials.append(frame.hstack([pl.Series(_PARTITION, partitions, dtype=pl.Int32)]))
        self._oldest_micros = latency_header.older(self._oldest_micros, latency_header.oldest(messages))
        return sum(counts)

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
        if self._partials:
            self._totals = self._add_to_totals(pl.concat(self._partials))
        records = [
            OutRecord(self._topics.state_topic, partition, key, value)
            for partition, totals in self._totals.items()
            for key, value in totals.items()
        ]
        changed = self._assigned.changed
        for partition, progress in changed.items():
            records += self._watermark_record(partition, progress)
        written = {self._topics.state_topic: len(records)}
        return Output(records, changed, self._oldest_micros, written=written)

    def accept(self) -> None:
        for partition, totals in self._totals.items():
            self._store.put_many(partition, totals)
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
        return watermarks, count, value[at : len(value) - 1] if count else b""

    def _add_to_totals(self, partials: pl.DataFrame) -> dict[int, dict[bytes, bytes]]:
        """New totals of the groups that have partials, by partition and key; all partitions at once."""
        groups = partials.hstack([pl.Series(_KEY, group_keys(partials, self._pipeline), dtype=pl.Binary)])
        both = pl.concat([self._known(groups), groups])
        joined = self._pipeline.merge(both, [_PARTITION, _KEY])
        rows = encode_rows(pl.DataFrame([joined[name] for name in self._columns]))
        totals: dict[int, dict[bytes, bytes]] = {}
        for partition, key, row in zip(
            joined[_PARTITION].to_list(), joined[_KEY].to_list(), rows, strict=True
        ):
            totals.setdefault(partition, {})[key] = self._value_prefix + row
        return totals

    def _known(self, groups: pl.DataFrame) -> pl.DataFrame:
        """The totals so far of those groups that have one."""
        wanted_keys: dict[int, dict[bytes, None]] = {}
        for partition, key in zip(groups[_PARTITION].to_list(), groups[_KEY].to_list(), strict=True):
            wanted_keys.setdefault(partition, {})[key] = None
        start = len(self._value_prefix)
        bodies: list[bytes] = []
        partitions: list[int] = []
        keys: list[bytes] = []
        for partition, wanted in wanted_keys.items():
            for key, value in zip(wanted, self._store.get_many(partition, list(wanted)), strict=True):
                if value is not None:
                    bodies.append(value[start:])
                    partitions.append(partition)
                    keys.append(key)
        # A total has the fields of a partial, so they are read alike.
        frame = self._groups.read(len(bodies), b"".join(bodies))
        return frame.hstack(
            [pl.Series(_PARTITION, partitions, dtype=pl.Int32), pl.Series(_KEY, keys, dtype=pl.Binary)]
        )

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
