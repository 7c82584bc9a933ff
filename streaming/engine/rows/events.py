"""Events of a cycle → partials of their groups, over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streaming.engine.interpreters import EventDeps, Owned, Poll, owner_of
from streaming.engine.row_codec import GroupCodec
from streaming.engine.rows import expressions
from streaming.engine.rows.aggregates import Groups
from streaming.engine.rows.keys import key_maker
from streaming.engine.windows import MICROSECOND, assigner


class RowEvents:
    """The EventInterpreter for few events."""

    def __init__(self, deps: EventDeps) -> None:
        pipeline, source_input, parameters = deps.pipeline, deps.source_input, deps.parameters
        self._pipeline = pipeline
        self._input = source_input
        self._decoder = deps.decoder
        self._partitions = deps.partitions
        self._lists_late = deps.lists_late
        self._window_of = None if pipeline.calendar is None else assigner(parameters.windows)
        self._grace = parameters.grace // MICROSECOND
        self._checks = [(check.reason, expressions.condition(check.holds)) for check in source_input.checks]
        self._sign = expressions.sign(source_input.events.sign)
        normal = source_input.normal
        self._normal = {} if normal is None else normal.readers(pipeline.reads(source_input))
        self._codec = GroupCodec(pipeline.fields)
        self._key_of = key_maker(pipeline)
        self._groups = Groups(pipeline.fields, source_input.aggregates)

    def add(
        self,
        values: Sequence[bytes | None],
        partitions: Sequence[int],
        last_seqs: Callable[[int], Mapping[str, int]],
    ) -> Poll:
        poll = Poll()
        decoded, bad = self._decoder.rows(values)
        poll.refused = [(row, reason, "undecodable") for row, reason in bad]
        names = self._input.events
        for row, event in decoded:
            partition = partitions[row]
            if not self._is_fresh(event, partition, last_seqs, poll):
                continue
            for name, read in self._normal.items():
                event[name] = read(event[name])
            reason = self._refusal(event)
            if reason is not None:
                poll.refused.append((row, reason, reason))
                continue
            happened, recorded = event[names.event_time], event[names.recorded_time]
            if recorded != happened and (poll.oldest_micros is None or recorded < poll.oldest_micros):
                poll.oldest_micros = recorded
            if happened > recorded:
                poll.future[partition] += 1
            self._group(row, event, partition, poll)
        return poll

    def partials(self) -> Owned:
        owned: Owned = {}
        for group in self._groups.finished().values():
            owner = owner_of(self._key_of(group), self._partitions)
            owned.setdefault(owner, []).append(self._codec.write(group))
        return owned

    def clear(self) -> None:
        self._groups.clear()

    def _is_fresh(
        self,
        event: Mapping[str, Any],
        partition: int,
        last_seqs: Callable[[int], Mapping[str, int]],
        poll: Poll,
    ) -> bool:
        """Whether its seq is above every one before it in its partition and source."""
        source, seq = event[self._input.events.source], event[self._input.events.seq]
        seen = poll.last_seqs.setdefault(partition, {})
        last = seen[source] if source in seen else last_seqs(partition).get(source, -1)
        seen[source] = max(last, seq)
        if seq > last:
            return True
        poll.duplicates[partition] += 1
        return False

    def _refusal(self, event: Mapping[str, Any]) -> str | None:
        """The reason of the first check that does not hold."""
        for reason, holds in self._checks:
            if not holds(event):
                return reason
        return None

    def _group(self, row: int, event: dict[str, Any], partition: int, poll: Poll) -> None:
        event["sign"] = self._sign(event)
        fields = {name: event[name] for name in self._pipeline.group_by}
        if self._window_of is not None:
            start, end = self._window_of(event[self._input.events.event_time])
            fields |= {"window_start": start, "window_end": end}
            event["is_late"] = event[self._input.events.recorded_time] >= end + self._grace
            if event["is_late"]:
                poll.late[partition] += 1
                if self._lists_late:
                    poll.late_rows.append((row, start, end))
        self._groups.add(tuple(fields.values()), fields, event)
