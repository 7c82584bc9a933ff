"""combine: events of a poll → partials of their groups, on the partition that owns each group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kafka_client import latency_header
from kafka_client.registry import Codec, header
from streaming.engine.blocks import zigzag
from streaming.engine.columns.events import ColumnEvents
from streaming.engine.decoding import Decoder
from streaming.engine.interpreters import EventDeps, EventInterpreter, Poll
from streaming.engine.pipeline import Input, Parameters, Pipeline
from streaming.engine.progress import Progress
from streaming.engine.rows.events import RowEvents
from streaming.engine.step import Assigned, Message, Output, OutRecord
from streaming.engine.windows import from_micros, to_micros

# Kafka's clients and brokers refuse a record of over a million bytes, frame included.
MOST_BYTES = 500_000
# A late event or dead letter holds the event; a longer one is cut, topic, partition and offset identify it.
MOST_EMBEDDED_BYTES = 900_000
# A cycle of so many events is interpreted as rows, a larger one as columns; measured, see decision 45.
MOST_ROWS = 100
# An Avro array without items.
NO_GROUPS = NO_WATERMARKS = zigzag(0)


@dataclass(frozen=True)
class CombineOutputs:
    """Where combine writes: topics, partition count, and the codecs of late events and dead letters.

    `first_input` is merge's number of partition 0 of the input: the partitions of all inputs are numbered through.
    Without a `late_topic` late events are counted only: a replay would write those again that were written long ago.
    """

    partials_topic: str
    partials_partitions: int
    partials_schema_id: int
    late_topic: str | None
    late_codec: Codec
    dead_topic: str
    dead_codec: Codec
    first_input: int = 0


class Combine:
    """Duplicates and invalid events are set aside and counted, late ones marked and counted, the rest grouped.

    The result depends on the events alone: not on polls, commits, or the order between partitions.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        source_input: Input,
        parameters: Parameters,
        generation: int,
        decoder: Decoder,
        outputs: CombineOutputs,
    ) -> None:
        self.name = pipeline.step(source_input)
        self.input_topic = source_input.source.name
        self._pipeline = pipeline
        self._input = source_input
        self._parameters = parameters
        self._generation = generation
        self._out = outputs
        self._assigned = Assigned()
        deps = EventDeps(
            pipeline,
            source_input,
            parameters,
            decoder,
            outputs.partials_partitions,
            lists_late=outputs.late_topic is not None,
        )
        self._rows, self._columns = RowEvents(deps), ColumnEvents(deps)
        # Of this cycle, which is what lies between two of accept and reset.
        self._interpreter: EventInterpreter = self._rows
        self._events = 0
        self._records: list[OutRecord] = []
        self._watermarks: dict[int, datetime] = {}
        self._oldest_micros: int | None = None
        self._refused = Counter[str]()

    def begin(self, partition: int, progress: Progress) -> None:
        self._assigned.begin(partition, progress)

    def forget(self, partition: int) -> None:
        self._assigned.forget(partition)
        self._watermarks.pop(partition, None)

    def progress(self, partition: int) -> Progress:
        return self._assigned.accepted(partition)

    def pending(self) -> bool:
        return bool(self._assigned.changed)

    def watermark(self, partition: int, at: datetime) -> None:
        """Send it in band, to every partials partition, behind what was added before it; never backwards."""
        progress = self._assigned.current(partition)
        name = str(partition)
        if name not in progress.watermarks or progress.watermarks[name] < at:
            self._assigned.advance(partition, replace(progress, watermarks={name: at}))
            self._watermarks[partition] = at

    def add(self, messages: Sequence[Message]) -> int:
        if not messages:
            return 0
        self._choose(len(messages))
        partitions = [message.partition() for message in messages]
        # The last row of each partition is where the poll ended there.
        last_row = dict(zip(partitions, range(len(partitions)), strict=True))
        counts = Counter(partitions)
        poll = self._interpreter.add(
            [message.value() for message in messages],
            partitions,
            lambda partition: self._assigned.current(partition).last_seq,
        )
        self._write_beside(poll, messages)
        self._oldest_micros = latency_header.older(self._oldest_micros, poll.oldest_micros)
        dead = Counter(partitions[row] for row, _, _ in poll.refused)
        for partition, row in last_row.items():
            before = self._assigned.current(partition)
            self._assigned.advance(
                partition,
                Progress(
                    next_offset=messages[row].offset() + 1,
                    last_seq={**before.last_seq, **poll.last_seqs.get(partition, {})},
                    watermarks=before.watermarks,
                    events=before.events + counts[partition],
                    duplicates=before.duplicates + poll.duplicates[partition],
                    late=before.late + poll.late[partition],
                    dead=before.dead + dead[partition],
                    future=before.future + poll.future[partition],
                ),
            )
        return len(messages)

    def _choose(self, events: int) -> None:
        """Rows until the cycle is too large for them: then columns go on with what rows made of it so far."""
        self._events += events
        if self._events > MOST_ROWS and self._interpreter is self._rows:
            self._columns.take_over(self._rows.partials())
            self._rows.clear()
            self._interpreter = self._columns

    def take(self) -> Output:
        partials, dead = self._partial_records(), self._refused.total()
        written = {self._out.partials_topic: len(partials), self._out.dead_topic: dead}
        if self._out.late_topic is not None:
            written[self._out.late_topic] = len(self._records) - dead
        records = self._records + partials
        return Output(records, self._assigned.changed, self._oldest_micros, dict(self._refused), written)

    def accept(self) -> None:
        self._assigned.accept()
        self._drop()

    def reset(self) -> None:
        self._assigned.reset()
        self._drop()

    def _drop(self) -> None:
        self._interpreter.clear()
        self._interpreter = self._rows
        self._events = 0
        self._records.clear()
        self._watermarks.clear()
        self._oldest_micros = None
        self._refused.clear()

    # -- beside the partials

    def _write_beside(self, poll: Poll, messages: Sequence[Message]) -> None:
        """Dead letters and late events of a poll."""
        for row, reason, kind in poll.refused:
            self._dead_letter(messages[row], reason, kind)
        if self._out.late_topic is not None:
            for row, start, end in poll.late_rows:
                self._late_event(self._out.late_topic, messages[row], from_micros(start), from_micros(end))

    def _dead_letter(self, message: Message, reason: str, kind: str) -> None:
        """`kind` is one of a few, for the metrics; the reason may quote the value."""
        self._refused[kind] += 1
        record = {
            "origin": self.input_topic,
            "partition": message.partition(),
            "offset": message.offset(),
            "reason": reason,
            "value": _embedded(message),
        }
        # No generation in the key: every reader of the log that refuses the event writes the same key.
        key = f"{self.input_topic}/{message.partition()}/{message.offset()}".encode()
        self._records.append(OutRecord(self._out.dead_topic, None, key, self._out.dead_codec.encode(record)))

    def _late_event(self, topic: str, message: Message, start: datetime, end: datetime) -> None:
        record = {
            "pipeline": self._pipeline.name,
            "generation": self._generation,
            "window_start": start,
            "window_end": end,
            "origin": self.input_topic,
            "partition": message.partition(),
            "offset": message.offset(),
            "event": _embedded(message),
        }
        key = f"{self.input_topic}/{message.partition()}/{message.offset()}/{self._pipeline.name}".encode()
        self._records.append(OutRecord(topic, None, key, self._out.late_codec.encode(record)))

    # -- partials

    def _partial_records(self) -> list[OutRecord]:
        """Records for each partials partition that has groups, and for every partition when a watermark moved."""
        owned = self._interpreter.partials()
        watermarks = self._encode_watermarks()
        prefix = header(self._out.partials_schema_id)
        partitions = range(self._out.partials_partitions) if self._watermarks else sorted(owned)
        records = []
        for partition in partitions:
            blocks = encode_arrays(owned.get(partition, [])) or [NO_GROUPS]
            # A watermark comes after everything that it covers, so the last record carries it.
            heads = [NO_WATERMARKS] * (len(blocks) - 1) + [watermarks]
            records += [
                OutRecord(self._out.partials_topic, partition, None, prefix + head + block)
                for head, block in zip(heads, blocks, strict=True)
            ]
        return records

    def _encode_watermarks(self) -> bytes:
        items = b"".join(
            zigzag(self._out.first_input + partition) + zigzag(to_micros(at))
            for partition, at in self._watermarks.items()
        )
        return (zigzag(len(self._watermarks)) + items if items else b"") + NO_WATERMARKS


def _embedded(message: Message) -> bytes | None:
    value = message.value()
    return None if value is None else value[:MOST_EMBEDDED_BYTES]


def encode_arrays(groups: list[bytes]) -> list[bytes]:
    """Avro arrays of group records, one block each, halved until each fits into a record."""
    if not groups:
        return []
    block = b"".join(groups)
    if len(block) > MOST_BYTES and len(groups) > 1:
        middle = len(groups) // 2
        return encode_arrays(groups[:middle]) + encode_arrays(groups[middle:])
    return [zigzag(len(groups)) + block + NO_GROUPS]
