"""Events of a cycle → partials of their groups, over columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import polars as pl

from streaming.engine.blocks import Records, encode_rows
from streaming.engine.columns import expressions
from streaming.engine.columns.aggregates import accumulate, merge
from streaming.engine.columns.keys import group_keys
from streaming.engine.columns.texts import normalised
from streaming.engine.interpreters import EventDeps, Owned, Poll, owner_of
from streaming.engine.windows import MICROSECOND, assign

# Flags of an event.
_VALID, _AHEAD, _LATE = "_valid", "_ahead", "is_late"


class ColumnEvents:
    """The EventInterpreter for many events."""

    def __init__(self, deps: EventDeps) -> None:
        pipeline, source_input, parameters = deps.pipeline, deps.source_input, deps.parameters
        self._pipeline = pipeline
        self._input = source_input
        self._calendar = parameters.windows
        self._grace = parameters.grace // MICROSECOND
        self._decoder = deps.decoder
        self._partitions = deps.partitions
        self._lists_late = deps.lists_late
        self._partials: list[pl.DataFrame] = []
        self._fields = [field.name for field in pipeline.fields]
        events = source_input.events
        checks = [(check.reason, expressions.condition(check.holds)) for check in source_input.checks]
        # Everything that depends on an event alone, in one pass over the frame.
        self._flags = [
            pl.all_horizontal([holds for _, holds in checks]).fill_null(False).alias(_VALID),
            (pl.col(events.event_time) > pl.col(events.recorded_time)).alias(_AHEAD),
            expressions.sign(events.sign).alias("sign"),
        ]
        self._reason = pl.coalesce(
            [pl.when(~holds.fill_null(False)).then(pl.lit(reason)) for reason, holds in checks]
        ).alias("why")

    def add(
        self,
        values: Sequence[bytes | None],
        partitions: Sequence[int],
        last_seqs: Callable[[int], Mapping[str, int]],
    ) -> Poll:
        poll = Poll()
        decoded = self._decoder.decode(values)
        poll.refused = [(row, reason, "undecodable") for row, reason in decoded.bad]
        frame = decoded.frame
        kept = partitions if not decoded.bad else [partitions[row] for row in frame["row"]]
        frame.insert_column(1, pl.Series("partition", kept, dtype=pl.Int32))
        frame = self._without_duplicates(frame, last_seqs, poll)
        if self._input.normal is not None and frame.height:
            frame = normalised(frame, self._input.normal)
        frame = self._without_invalid(frame.with_columns(self._flags), poll)
        poll.oldest_micros = self._oldest(frame)
        poll.future = _counted(frame, _AHEAD)
        self._group(frame, poll)
        return poll

    def take_over(self, partials: Owned) -> None:
        """Partials of the same cycle that rows made."""
        encoded = [group for groups in partials.values() for group in groups]
        if encoded:
            records = Records(self._pipeline.group_schema("Partial"))
            self._partials.append(records.read(len(encoded), b"".join(encoded)))

    def partials(self) -> Owned:
        owned: Owned = {}
        if self._partials:
            groups = self._partials[0]
            if len(self._partials) > 1:
                # By name: rows that were taken over have the order of the schema.
                groups = merge(self._pipeline, pl.concat(self._partials, how="diagonal"))
            rows = encode_rows(pl.DataFrame([groups[name] for name in self._fields]))
            for key, row in zip(group_keys(groups, self._pipeline), rows, strict=True):
                owned.setdefault(owner_of(key, self._partitions), []).append(row)
        return owned

    def clear(self) -> None:
        self._partials.clear()

    def _oldest(self, frame: pl.DataFrame) -> int | None:
        """When the oldest event was recorded; a row of a snapshot bears the time of its sale instead."""
        events = self._input.events
        recorded, sold = frame[events.recorded_time], frame[events.event_time]
        return cast("int | None", recorded.filter(recorded != sold).min())

    def _without_duplicates(
        self, frame: pl.DataFrame, last_seqs: Callable[[int], Mapping[str, int]], poll: Poll
    ) -> pl.DataFrame:
        """Only events whose seq is above every one before it in its partition and source."""
        source, seq = self._input.events.source, self._input.events.seq
        runs = frame.group_by("partition", source, maintain_order=True).agg(
            first=pl.col(seq).first(),
            greatest=pl.col(seq).max(),
            # Compared and not subtracted: a difference may overflow.
            ordered=(pl.col(seq) > pl.col(seq).shift(1)).all(),
        )
        last: list[int] = []
        fresh = True
        for partition, name, first, greatest, ordered in runs.iter_rows():
            before = last_seqs(partition).get(name, -1)
            poll.last_seqs.setdefault(partition, {})[name] = max(before, greatest)
            last.append(before)
            fresh = fresh and ordered and first > before
        if fresh:
            return frame
        # Rare, so it may cost a join: a redelivery, or a log that was appended to twice.
        runs = runs.select("partition", source, last=pl.Series(last, dtype=pl.Int64))
        seen = pl.max_horizontal(pl.col(seq).cum_max().shift(1).over("partition", source), pl.col("last"))
        marked = frame.join(runs, on=["partition", source], how="left", maintain_order="left").with_columns(
            _fresh=pl.col(seq) > seen
        )
        poll.duplicates = Counter(marked.filter(~pl.col("_fresh"))["partition"].to_list())
        return marked.filter("_fresh").drop("_fresh", "last")

    def _without_invalid(self, frame: pl.DataFrame, poll: Poll) -> pl.DataFrame:
        """Only events that every check holds for; the others are refused with the first reason."""
        valid = frame[_VALID]
        if valid.all():
            return frame
        refused = frame.filter(~valid).select("row", self._reason)
        poll.refused += [(row, why, why) for row, why in refused.iter_rows()]
        return frame.filter(valid)

    def _group(self, frame: pl.DataFrame, poll: Poll) -> None:
        """Adds the partials of the events to the cycle's."""
        if frame.is_empty():
            return
        if self._pipeline.calendar is not None:
            frame = self._with_windows(frame, poll)
        self._partials.append(accumulate(self._pipeline, self._input, frame))

    def _with_windows(self, frame: pl.DataFrame, poll: Poll) -> pl.DataFrame:
        events = self._input.events
        windows = assign(frame[events.event_time], self._calendar)
        recorded, end = frame[events.recorded_time].to_numpy(), windows["window_end"].to_numpy()
        frame = frame.hstack(windows).hstack([pl.Series(_LATE, recorded >= end + self._grace)])
        poll.late = _counted(frame, _LATE)
        if poll.late and self._lists_late:
            poll.late_rows = frame.filter(_LATE).select("row", "window_start", "window_end").rows()
        return frame


def _counted(frame: pl.DataFrame, flag: str) -> Counter[int]:
    """How many rows have the flag, by partition."""
    return Counter(frame["partition"].filter(frame[flag]).to_list())
