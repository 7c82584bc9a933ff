"""combine: events of a poll → partials of their groups, on the partition that owns each group."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from contracts.registry import Codec, header
from streaming.engine.blocks import Decoder, encode_block, zigzag
from streaming.engine.pipeline import Input, Parameters, Pipeline
from streaming.engine.progress import Progress
from streaming.engine.step import Assigned, Message, Output, OutRecord
from streaming.engine.windows import MICROSECOND, assign, from_micros, to_micros

# Kafka's clients and brokers refuse a record of over a million bytes, frame included.
MOST_BYTES = 500_000
# What is told of one event holds the event; a longer one is cut, its place in the log is told beside.
MOST_EMBEDDED_BYTES = 900_000
# An Avro array without items.
NO_GROUPS = NO_WATERMARKS = zigzag(0)


@dataclass(frozen=True)
class CombineOutputs:
    """Where combine writes: topics, partition count, and the codecs of what outsiders read.

    `first_input` is the number that merge gives to partition 0 of the input: those of all inputs are counted through.
    """

    partials_topic: str
    partials_partitions: int
    partials_schema_id: int
    late_topic: str
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
        found: Input,
        parameters: Parameters,
        generation: int,
        decoder: Decoder,
        outputs: CombineOutputs,
    ) -> None:
        self.name = pipeline.step(found)
        self.input_topic = found.source.name
        self._pipeline = pipeline
        self._input = found
        self._parameters = parameters
        self._generation = generation
        self._decoder = decoder
        self._out = outputs
        self._calendar = parameters.windows
        self._assigned = Assigned()
        self._partials: list[pl.DataFrame] = []
        self._records: list[OutRecord] = []
        self._watermarks: dict[int, datetime] = {}
        self._valid = pl.all_horizontal([check.holds for check in found.checks])

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
        """Sends it on in band, to every partials partition, with what was added before it; never backwards."""
        progress = self._assigned.current(partition)
        name = str(partition)
        if name not in progress.watermarks or progress.watermarks[name] < at:
            self._assigned.advance(partition, replace(progress, watermarks={name: at}))
            self._watermarks[partition] = at

    def add(self, messages: Sequence[Message]) -> int:
        if not messages:
            return 0
        partitions = [message.partition() for message in messages]
        # The last row of each partition says how far the poll came there.
        last_row = dict(zip(partitions, range(len(partitions)), strict=True))
        counts = Counter(partitions)
        decoded = self._decoder.decode([message.value() for message in messages])
        dead = Counter[int]()
        for row, reason in decoded.bad:
            dead[partitions[row]] += 1
            self._dead_letter(messages[row], reason)
        frame = decoded.frame.with_columns(
            partition=pl.Series(partitions, dtype=pl.Int32)
            if not decoded.bad
            else pl.Series([partitions[row] for row in decoded.frame["row"]], dtype=pl.Int32)
        )
        last_seqs = self._last_seqs(frame)
        frame, duplicates = self._without_duplicates(frame)
        frame = self._without_invalid(frame, messages, dead)
        late = self._group(frame, messages)
        future = self._future(frame)
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
        records = self._records + self._partial_records()
        return Output(records, self._assigned.changed)

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

    # -- setting aside

    def _last_seqs(self, frame: pl.DataFrame) -> dict[int, dict[str, int]]:
        """The greatest seq per partition and source, with what was seen before."""
        source, seq = self._input.events.source, self._input.events.seq
        found: dict[int, dict[str, int]] = {}
        for partition, name, greatest in (
            frame.group_by("partition", source).agg(pl.col(seq).max()).iter_rows()
        ):
            before = self._assigned.current(partition).last_seq.get(name, -1)
            found.setdefault(partition, {})[name] = max(before, greatest)
        return found

    def _without_duplicates(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, Counter[int]]:
        """Only events whose seq is above every one before it in its partition and source."""
        source, seq = self._input.events.source, self._input.events.seq
        runs = frame.group_by("partition", source, maintain_order=True).agg(
            first=pl.col(seq).first(), ordered=(pl.col(seq).diff().fill_null(1) > 0).all()
        )
        last = [
            self._assigned.current(partition).last_seq.get(name, -1)
            for partition, name in runs.select("partition", source).iter_rows()
        ]
        runs = runs.with_columns(last=pl.Series(last, dtype=pl.Int64))
        if runs.select((pl.col("ordered") & (pl.col("first") > pl.col("last"))).all()).item():
            return frame, Counter()
        # Rare, so it may cost a join: a redelivery, or a log that was appended to twice.
        seen = pl.max_horizontal(pl.col(seq).cum_max().shift(1).over("partition", source), pl.col("last"))
        marked = frame.join(runs, on=["partition", source], how="left", maintain_order="left").with_columns(
            _fresh=pl.col(seq) > seen
        )
        duplicates = Counter(marked.filter(~pl.col("_fresh"))["partition"].to_list())
        return marked.filter("_fresh").drop("_fresh", "first", "ordered", "last"), duplicates

    def _without_invalid(
        self, frame: pl.DataFrame, messages: Sequence[Message], dead: Counter[int]
    ) -> pl.DataFrame:
        """Only events that every check holds for; the others become dead letters with the first reason."""
        valid = frame.select(self._valid.alias("valid"))["valid"]
        if valid.all():
            return frame
        reason = pl.coalesce(
            [pl.when(~check.holds).then(pl.lit(check.reason)) for check in self._input.checks]
        )
        for row, partition, why in (
            frame.filter(~valid).select("row", "partition", reason.alias("why")).iter_rows()
        ):
            dead[partition] += 1
            self._dead_letter(messages[row], why)
        return frame.filter(valid)

    def _dead_letter(self, message: Message, reason: str) -> None:
        record = {
            "origin": self.input_topic,
            "partition": message.partition(),
            "offset": message.offset(),
            "reason": reason,
            "value": _embedded(message),
        }
        # No generation in the key: whoever reads the log and refuses the event says the same of it.
        key = f"{self.input_topic}/{message.partition()}/{message.offset()}".encode()
        self._records.append(OutRecord(self._out.dead_topic, None, key, self._out.dead_codec.encode(record)))

    def _future(self, frame: pl.DataFrame) -> Counter[int]:
        """How many facts say that they happen after they were recorded, by partition: a clock or a typing error."""
        events = self._input.events
        ahead = frame.filter(pl.col(events.event_time) > pl.col(events.recorded_time))
        return Counter(ahead["partition"].to_list())

    # -- grouping

    def _group(self, frame: pl.DataFrame, messages: Sequence[Message]) -> Counter[int]:
        """Adds the partials of the events to the overlay. Returns how many were late, by partition."""
        if frame.is_empty():
            return Counter()
        events = self._input.events
        frame = frame.with_columns(sign=events.sign)
        if self._pipeline.calendar is None:
            self._partials.append(self._pipeline.collect(self._input, frame))
            return Counter()
        grace = self._parameters.grace // MICROSECOND
        frame = frame.hstack(assign(frame[events.event_time], self._calendar)).with_columns(
            is_late=pl.col(events.recorded_time) >= pl.col("window_end") + grace
        )
        self._partials.append(self._pipeline.collect(self._input, frame))
        if not frame["is_late"].any():
            return Counter()
        late = frame.filter("is_late").select("row", "partition", "window_start", "window_end")
        for row, _, start, end in late.iter_rows():
            self._late_event(messages[row], from_micros(start), from_micros(end))
        return Counter(late["partition"].to_list())

    def _late_event(self, message: Message, start: datetime, end: datetime) -> None:
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
        self._records.append(OutRecord(self._out.late_topic, None, key, self._out.late_codec.encode(record)))

    # -- partials

    def _partial_records(self) -> list[OutRecord]:
        """Records for each partials partition that has groups, and for every partition when a watermark moved."""
        owned: Mapping[int, pl.DataFrame] = {}
        if self._partials:
            groups = pl.concat(self._partials)
            if len(self._partials) > 1:
                groups = self._pipeline.join(groups)
            owned = by_owner(groups, self._pipeline, self._out.partials_partitions)
        watermarks = self._encode_watermarks()
        prefix = header(self._out.partials_schema_id)
        partitions = range(self._out.partials_partitions) if self._watermarks else sorted(owned)
        records = []
        for partition in partitions:
            blocks = encode_arrays(owned.get(partition)) or [NO_GROUPS]
            # A watermark stands behind everything that it covers, so the last record carries it.
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


def encode_arrays(groups: pl.DataFrame | None) -> list[bytes]:
    """Avro arrays of group records, one block each, halved until each fits into a record."""
    if groups is None or groups.is_empty():
        return []
    block = encode_block(groups)
    if len(block) > MOST_BYTES and groups.height > 1:
        middle = groups.height // 2
        return encode_arrays(groups[:middle]) + encode_arrays(groups[middle:])
    return [zigzag(groups.height) + block + NO_GROUPS]


def group_keys(groups: pl.DataFrame, pipeline: Pipeline) -> list[bytes]:
    """The key of each group: window start and group columns, separated by `|`, with `\\` and `|` escaped.

    Without windows the first part is empty: no key is that of a watermark or of a note in the local store.
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


def by_owner(groups: pl.DataFrame, pipeline: Pipeline, partitions: int) -> dict[int, pl.DataFrame]:
    """Groups by the partition that owns them: a hash of the key that is the same in every version of every library."""
    owners = [zlib.crc32(key) % partitions for key in group_keys(groups, pipeline)]
    columns = [field.name for field in pipeline.fields]
    owned = groups.select(columns).with_columns(_owner=pl.Series(owners, dtype=pl.Int32))
    parts: dict[tuple[Any, ...], pl.DataFrame] = owned.partition_by("_owner", as_dict=True, include_key=False)
    return {int(owner[0]): part for owner, part in parts.items()}
