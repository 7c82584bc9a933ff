"""The test driver: a pipeline in memory, with explicit times and no broker.

It runs the same combine and merge as a worker, over logs in lists; the test chooses polls, commits, aborts and the
number of workers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from contracts.schemas import load
from kafka_client import latency_header
from kafka_client.registry import Codec
from kafka_client.writer_schemas import UnknownSchema, parse
from streaming.engine.combine import Combine, CombineOutputs
from streaming.engine.decoding import Decoder
from streaming.engine.merge import WATERMARK_KEY, Merge, MergeTopics
from streaming.engine.pipeline import Parameters, Pipeline
from streaming.engine.progress import Progress
from streaming.engine.step import Output, Step


class MemoryRegistry:
    """Schemas by id, as a registry keeps them."""

    def __init__(self) -> None:
        self._schemas: list[Any] = []

    def register(self, subject: str, schema: Any) -> int:
        if schema not in self._schemas:
            self._schemas.append(schema)
        return self._schemas.index(schema) + 1

    def schema(self, schema_id: int) -> Any:
        if not 0 < schema_id <= len(self._schemas):
            raise UnknownSchema(schema_id)
        return parse(schema_id, json.dumps(self._schemas[schema_id - 1]))

    def codec(self, subject: str, schema: Any) -> Codec:
        return Codec(self, self.register(subject, schema), schema)


class MemoryStore:
    """A state store in a dict per partition."""

    def __init__(self) -> None:
        self._values: dict[int, dict[bytes, bytes]] = {}

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        known = self._values.get(partition, {})
        return [known.get(key) for key in keys]

    def put_many(self, partition: int, items: Mapping[bytes, bytes]) -> None:
        self._values.setdefault(partition, {}).update(items)


@dataclass(frozen=True)
class LogRecord:
    """One record of an in-memory log; a Message for the engine."""

    at_partition: int
    at_offset: int
    with_key: bytes | None
    with_value: bytes | None
    with_headers: list[tuple[str, bytes]] | None = None

    def key(self) -> bytes | None:
        return self.with_key

    def value(self) -> bytes | None:
        return self.with_value

    def partition(self) -> int:
        return self.at_partition

    def offset(self) -> int:
        return self.at_offset

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self.with_headers


@dataclass
class Log:
    """A topic in memory. Offsets have gaps, as those of a transactional log do."""

    partitions: int
    records: list[list[LogRecord]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.records = [[] for _ in range(self.partitions)]

    def append(
        self,
        partition: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        if partition is None:
            partition = zlib.crc32(key or b"") % self.partitions
        records = self.records[partition]
        records.append(LogRecord(partition, 2 * len(records), key, value, headers))

    def after(self, partition: int, offset: int) -> list[LogRecord]:
        return [record for record in self.records[partition] if record.at_offset >= offset]


class Driver:
    """One generation of a pipeline in memory.

    `combine(...)` and `merge(...)` move records through one transaction each: read from the progress, commit or
    abort. A worker is a `Combine` or `Merge` of its own; `workers` of them share the partitions.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        parameters: Parameters,
        *,
        input_partitions: int = 4,
        state_partitions: int = 3,
        workers: int = 1,
    ) -> None:
        self.registry = MemoryRegistry()
        self.pipeline = pipeline
        schemas = [load(source_input.source.schema) for source_input in pipeline.inputs]
        self.event_codecs = [
            self.registry.codec(source_input.source.subject, schema)
            for source_input, schema in zip(pipeline.inputs, schemas, strict=True)
        ]
        self.logs = [Log(input_partitions) for _ in pipeline.inputs]
        self.partials = Log(state_partitions)
        self.state = Log(state_partitions)
        self.late = Log(1)
        self.dead = Log(1)
        self._topics = {"partials": self.partials, "state": self.state, "late": self.late, "dead": self.dead}
        decoders = [
            Decoder(schema, pipeline.reads(source_input), self.registry.schema)
            for source_input, schema in zip(pipeline.inputs, schemas, strict=True)
        ]
        partial_id = self.registry.register("partials", pipeline.partial_schema())
        self.state_codec = self.registry.codec("state", pipeline.state_schema())
        self._late_codec = self.registry.codec("late", load("late_event"))
        self._dead_codec = self.registry.codec("dead", load("dead_letter"))
        outputs = CombineOutputs(
            partials_topic="partials",
            partials_partitions=state_partitions,
            partials_schema_id=partial_id,
            late_topic="late",
            late_codec=self._late_codec,
            dead_topic="dead",
            dead_codec=self._dead_codec,
        )
        merge_topics = MergeTopics(
            "partials",
            partial_id,
            "state",
            self.state_codec.schema_id,
            input_partitions * len(pipeline.inputs),
        )
        store = MemoryStore()
        self._combines = [
            [
                Combine(
                    pipeline,
                    source_input,
                    parameters,
                    1,
                    decoders[number],
                    replace(outputs, first_input=number * input_partitions),
                )
                for _ in range(workers)
            ]
            for number, source_input in enumerate(pipeline.inputs)
        ]
        self.merges = [Merge(pipeline, store, merge_topics) for _ in range(workers)]
        for combines in self._combines:
            for partition in range(input_partitions):
                combines[partition % workers].begin(partition, Progress(next_offset=0))
        for partition in range(state_partitions):
            self.merges[partition % workers].begin(partition, Progress(next_offset=0))

    @property
    def log(self) -> Log:
        """The only log of a pipeline with one input, the first of others."""
        return self.logs[0]

    @property
    def event_codec(self) -> Codec:
        return self.event_codecs[0]

    def event(self, event: Mapping[str, Any], partition: int | None = None, *, number: int = 0) -> None:
        """Append one event to the log of an input."""
        self.logs[number].append(
            partition, str(event["sale_id"]).encode(), self.event_codecs[number].encode(event)
        )

    def combine(
        self, partition: int, most: int | None = None, *, commit: bool = True, number: int = 0
    ) -> int:
        """One transaction of an input's combine over at most `most` records of a partition. Returns how many."""
        return self._transact(self._combine(number, partition), self.logs[number], [partition], most, commit)

    def merge(self, partition: int, most: int | None = None, *, commit: bool = True) -> int:
        return self._transact(
            self.merges[partition % len(self.merges)], self.partials, [partition], most, commit
        )

    def watermark(self, partition: int, at: datetime, *, number: int = 0) -> None:
        """Everything recorded up to `at` was consumed from the partition; sent with a transaction of its own."""
        step = self._combine(number, partition)
        step.watermark(partition, at)
        if step.pending():
            self._commit(step, step.take())

    def run(self) -> None:
        """Drain everything."""
        for number, log in enumerate(self.logs):
            for partition in range(log.partitions):
                self.combine(partition, number=number)
        for partition in range(self.partials.partitions):
            self.merge(partition)

    def progress(self, partition: int, *, number: int = 0) -> Progress:
        """combine's progress in a partition of an input."""
        return self._combine(number, partition).progress(partition)

    def merge_progress(self, partition: int) -> Progress:
        return self.merges[partition % len(self.merges)].progress(partition)

    def late_events(self) -> list[dict[str, Any]]:
        """The late events."""
        return [
            self._late_codec.decode(r.with_value) for r in self.late.records[0] if r.with_value is not None
        ]

    def dead_letters(self) -> list[dict[str, Any]]:
        """The dead letters."""
        return [
            self._dead_codec.decode(r.with_value) for r in self.dead.records[0] if r.with_value is not None
        ]

    def totals(self) -> dict[bytes, dict[str, Any]]:
        """The newest total of every group, by key."""
        newest: dict[bytes, dict[str, Any]] = {}
        for records in self.state.records:
            for record in records:
                if record.with_key and record.with_value and record.with_key != WATERMARK_KEY:
                    newest[record.with_key] = self.state_codec.decode(record.with_value)[1]
        return newest

    def watermarks(self) -> dict[int, datetime]:
        """The newest watermark of every state partition that has one."""
        newest: dict[int, datetime] = {}
        for partition, records in enumerate(self.state.records):
            for record in records:
                if record.with_key == WATERMARK_KEY and record.with_value is not None:
                    newest[partition] = self.state_codec.decode(record.with_value)[1]["watermark"]
        return newest

    def _combine(self, number: int, partition: int) -> Combine:
        combines = self._combines[number]
        return combines[partition % len(combines)]

    def _transact(
        self, step: Step, log: Log, partitions: Sequence[int], most: int | None, commit: bool
    ) -> int:
        messages = [
            record
            for partition in partitions
            for record in log.after(partition, step.progress(partition).next_offset)
        ][:most]
        step.add(messages)
        if step.pending():
            output = step.take()
            if commit:
                self._commit(step, output)
            else:
                step.reset()
        return len(messages) if commit else 0

    def _commit(self, step: Step, output: Output) -> None:
        oldest = output.oldest_micros
        headers = None if oldest is None else latency_header.headers(oldest)
        for record in output.records:
            self._topics[record.topic].append(record.partition, record.key, record.value, headers)
        step.accept()


def canonical(totals: Mapping[bytes, Mapping[str, Any]]) -> str:
    """Totals as text that is equal if and only if the results are; restatement times are not part of a result."""
    rows = {
        key.decode(): {name: str(value) for name, value in record.items() if name != "restated_at"}
        for key, record in totals.items()
    }
    return json.dumps(rows, sort_keys=True)
