"""combine: events of a poll → partials of their groups, on the partition that owns each group."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

import polars as pl

from kafka_client import latency_header
from kafka_client.registry import Codec, header
from streaming.engine.blocks import encode_rows, zigzag
from streaming.engine.decoding import Decoder
from streaming.engine.pipeline import Input, Parameters, Pipeline
from streaming.engine.progress import Progress
from streaming.engine.step import Assigned, Message, Output, OutRecord
from streaming.engine.windows import MICROSECOND, assign, from_micros, to_micros

# Kafka's clients and brokers refuse a record of over a million bytes, frame included.
MOST_BYTES = 500_000
# A late event or dead letter holds the event; a longer one is cut, topic, partition and offset identify it.
MOST_EMBEDDED_BYTES = 900_000
# Flags of an event.
_VALID, _AHEAD = "_valid", "_ahead"
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
        self._decoder = decoder
        self._out = outputs
        self._calendar = parameters.windows
        self._assigned = Assigned()
        self._partials: list[pl.DataFrame] = []
        self._records: list[OutRecord] = []
        self._watermarks: dict[int, datetime] = {}
        self._oldest_micros: int | None = None
        self._refused = Counter[str]()
        events = source_input.events
        # Everything that depends on an event alone, in one pass over the frame.
        self._flags = [
            pl.all_horizontal([check.holds for check in source_input.checks]).alias(_VALID),
            (pl.col(events.event_time) > pl.col(events.recorded_time)).alias(_AHEAD),
            events.sign.alias("sign"),
        ]

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
        partitions = [message.partition() for message in messages]
        # The last row of each partition is where the poll ended there.
        last_row = dict(zip(partitions, range(len(partitions)), strict=True))
        counts = Counter(partitions)
        decoded = self._decoder.decode([message.value() for message in messages])
        dead = Counter[int]()
        for row, reason in decoded.bad:
            dead[partitions[row]] += 1
            self._dead_letter(messages[row], reason, "undecodable")
        frame = decoded.frame
        kept = partitions if not decoded.bad else [partitions[row] for row in frame["row"]]
        frame.insert_column(1, pl.Series("partition", kept, dtype=pl.Int32))
        frame, last_seqs, duplicates = self._without_duplicates(frame)
        if self._input.normal is not None and frame.height:
            frame = self._input.normal(frame)
        frame = frame.with_columns(self._flags)
        frame = self._without_invalid(frame, messages, dead)
        self._oldest_micros = latency_header.older(self._oldest_micros, self._oldest(frame))
        late = self._group(frame, messages)
        future = _counted(frame, _AHEAD)
        for partition, row in last_row.items():
            before = self._assigned.current(partition)
            self._assigned.advance(
                partition,
                Progress(
                    next_offset=messages[row].offset() + 1,
                    last_seq={**before.last_seq, **last_seqs.get(partition, {})},
                    watermarks=before.watermarks,
                    events=before.events + counts[partition],
                    duplicates=before.duplicates + duplicates[partition],
                    late=before.late + late[partition],
                    dead=before.dead + dead[partition],
                    future=before.future + future[partition],
                ),
            )
        return len(messages)

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
        self._partials.clear()
        self._records.clear()
        self._watermarks.clear()
        self._oldest_micros = None
        self._refused.clear()

    def _oldest(self, frame: pl.DataFrame) -> int | None:
        """When the oldest event was recorded; a row of a snapshot bears the time of its sale instead."""
        events = self._input.events
        recorded, sold = frame[events.recorded_time], frame[events.event_time]
        return cast("int | None", recorded.filter(recorded != sold).min())

    # -- setting aside

    def _without_duplicates(
        self, frame: pl.DataFrame
    ) -> tuple[pl.DataFrame, dict[int, dict[str, int]], Counter[int]]:
        """Only events whose seq is above every one before it in its partition and source.

        Beside them the greatest seq by partition and source, and how many were dropped by partition.
        """
        source, seq = self._input.events.source, self._input.events.seq
        runs = frame.group_by("partition", source, maintain_order=True).agg(
            first=pl.col(seq).first(),
            greatest=pl.col(seq).max(),
            ordered=(pl.col(seq).diff().fill_null(1) > 0).all(),
        )
        greatest_seqs: dict[int, dict[str, int]] = {}
        last: list[int] = []
        fresh = True
        for partition, name, first, greatest, ordered in runs.iter_rows():
            before = self._assigned.current(partition).last_seq.get(name, -1)
            greatest_seqs.setdefault(partition, {})[name] = max(before, greatest)
            last.append(before)
            fresh = fresh and ordered and first > before
        if fresh:
            return frame, greatest_seqs, Counter()
        # Rare, so it may cost a join: a redelivery, or a log that was appended to twice.
        runs = runs.select("partition", source, last=pl.Series(last, dtype=pl.Int64))
        seen = pl.max_horizontal(pl.col(seq).cum_max().shift(1).over("partition", source), pl.col("last"))
        marked = frame.join(runs, on=["partition", source], how="left", maintain_order="left").with_columns(
            _fresh=pl.col(seq) > seen
        )
        duplicates = Counter(marked.filter(~pl.col("_fresh"))["partition"].to_list())
        return marked.filter("_fresh").drop("_fresh", "last"), greatest_seqs, duplicates

    def _without_invalid(
        self, frame: pl.DataFrame, messages: Sequence[Message], dead: Counter[int]
    ) -> pl.DataFrame:
        """Only events that every check holds for; the others become dead letters with the first reason."""
        valid = frame[_VALID]
        if valid.all():
            return frame
        reason = pl.coalesce(
            [pl.when(~check.holds).then(pl.lit(check.reason)) for check in self._input.checks]
        )
        for row, partition, why in (
            frame.filter(~valid).select("row", "partition", reason.alias("why")).iter_rows()
        ):
            dead[partition] += 1
            self._dead_letter(messages[row], why, why)
        return frame.filter(valid)

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

    # -- grouping

    def _group(self, frame: pl.DataFrame, messages: Sequence[Message]) -> Counter[int]:
        """Adds the partials of the events to the overlay. Returns how many were late, by partition."""
        if frame.is_empty():
            return Counter()
        if self._pipeline.calendar is None:
            self._partials.append(self._pipeline.accumulate(self._input, frame))
            return Counter()
        events = self._input.events
        windows = assign(frame[events.event_time], self._calendar)
        recorded, end = frame[events.recorded_time].to_numpy(), windows["window_end"].to_numpy()
        frame = frame.hstack(windows).hstack(
            [pl.Series("is_late", recorded >= end + self._parameters.grace // MICROSECOND)]
        )
        self._partials.append(self._pipeline.accumulate(self._input, frame))
        late = _counted(frame, "is_late")
        if late and self._out.late_topic is not None:
            late_rows = frame.filter("is_late").select("row", "window_start", "window_end")
            for row, start, stop in late_rows.iter_rows():
                self._late_event(self._out.late_topic, messages[row], from_micros(start), from_micros(stop))
        return late

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
        owned: Mapping[int, list[bytes]] = {}
        if self._partials:
            groups = pl.concat(self._partials)
            if len(self._partials) > 1:
                groups = self._pipeline.merge(groups)
            owned = by_owner(groups, self._pipeline, self._out.partials_partitions)
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


def _counted(frame: pl.DataFrame, flag: str) -> Counter[int]:
    """How many rows have the flag, by partition."""
    return Counter(frame["partition"].filter(frame[flag]).to_list())


def encode_arrays(groups: list[bytes]) -> list[bytes]:
    """Avro arrays of group records, one block each, halved until each fits into a record."""
    if not groups:
        return []
    block = b"".join(groups)
    if len(block) > MOST_BYTES and len(groups) > 1:
        middle = len(groups) // 2
        return encode_arrays(groups[:middle]) + encode_arrays(groups[middle:])
    return [zigzag(len(groups)) + block + NO_GROUPS]


def group_keys(groups: pl.DataFrame, pipeline: Pipeline) -> list[bytes]:
    """The key of each group: window start and group columns, separated by `|`, with `\\` and `|` escaped.

    Without windows the first part is empty: no key equals that of a watermark or of the local store's metadata.
    """
    start = (
        pl.lit("")
        if pipeline.calendar is None
        else pl.from_epoch("window_start", time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    parts = [
        pl.col(name).str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
        for name in pipeline.group_by
    ]
    return [
        key.encode()
        for key in groups.select(pl.concat_str([start, *parts], separator="|").alias("key"))["key"]
    ]


def by_owner(groups: pl.DataFrame, pipeline: Pipeline, partitions: int) -> dict[int, list[bytes]]:
    """Groups, encoded, by the partition that owns them.

    The owner is a hash of the key that is the same in every version of every library.
    """
    rows = encode_rows(pl.DataFrame([groups[field.name] for field in pipeline.fields]))
    owned: dict[int, list[bytes]] = {}
    for key, row in zip(group_keys(groups, pipeline), rows, strict=True):
        owned.setdefault(zlib.crc32(key) % partitions, []).append(row)
    return owned
