"""A pipeline is a value: what is read, how it is grouped, windowed and aggregated, and where the answer goes.

It reads one log or several. Each input has a combine of its own; all of them send partials to the one merge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self

from contracts.calendar import Calendar, CalendarKind
from contracts.topics import Topic, combine_step
from contracts.zones import ZoneRules
from streaming.engine.aggregates import Aggregate, Field, text, timestamp
from streaming.engine.expressions import Condition, Sign, reads
from streaming.engine.normal_texts import NormalTexts

NAMESPACE = "electrored"


@dataclass(frozen=True)
class Check:
    """A rule that every event must satisfy; one that does not goes to the dead letters with the reason."""

    reason: str
    holds: Condition

    @property
    def reads(self) -> tuple[str, ...]:
        return reads(self.holds)


@dataclass(frozen=True)
class EventColumns:
    """The columns of an event that the engine needs."""

    source: str
    seq: str
    event_time: str
    recorded_time: str
    # 1 for a fact, -1 for its reversal.
    sign: Sign

    @property
    def sign_reads(self) -> tuple[str, ...]:
        return reads(self.sign)


@dataclass(frozen=True)
class Parameters:
    """What a generation was created with; changing one makes another generation.

    `rules` are those of the time zone then; without them those of this machine.
    """

    time_zone: str
    grace: timedelta
    calendar: CalendarKind
    rules: ZoneRules | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            "time_zone": self.time_zone,
            "grace_seconds": self.grace.total_seconds(),
            "calendar": self.calendar,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], rules: str | None = None) -> Self:
        """From its two columns."""
        return cls(
            value["time_zone"],
            timedelta(seconds=value["grace_seconds"]),
            value["calendar"],
            None if rules is None else ZoneRules.from_json(rules),
        )

    @property
    def windows(self) -> Calendar:
        return Calendar(self.calendar, self.time_zone, self.rules)

    @property
    def is_outdated(self) -> bool:
        """Whether this machine has other rules of the zone than the generation."""
        return self.rules is not None and not self.rules.is_current


@dataclass(frozen=True)
class Input:
    """A log that a pipeline reads, and what its events contribute.

    `sources` write the log: the least of their frontiers is its watermark. True: the source
    publishes its frontier all the time, so the log has no watermark before its first one; False: it may never publish.
    `normal` names the texts that are normalised before an event is checked and grouped.
    """

    source: Topic
    sources: Mapping[str, bool]
    events: EventColumns
    checks: tuple[Check, ...]
    aggregates: tuple[Aggregate, ...]
    normal: NormalTexts | None = None


Total = Mapping[str, Any]


def one_row(total: Total) -> Sequence[Total]:
    """A total is one row of the results table."""
    return (total,)


def counted(total: Total) -> Total | None:
    """A total is its public value; None for a group whose count is zero."""
    return None if total["sales_count"] == 0 else total


@dataclass(frozen=True)
class Pipeline:
    """The answer to one question. Building it starts nothing; a worker or the test driver runs it.

    `version` names the logic: a generation is pinned to it, and its partial and state schemas never change. Without a
    `calendar` there are no windows, and nothing is late. `rows` and `public` map a total to its rows and public value.
    """

    name: str
    version: int
    inputs: tuple[Input, ...]
    output: Topic
    table: str
    group_by: tuple[str, ...]
    calendar: CalendarKind | None
    rows: Callable[[Total], Sequence[Total]] = one_row
    public: Callable[[Total], Total | None] = counted
    # Columns that `rows` or `public` show and that no column of the total is called alike: those of it that each is
    # made of, for lineage. A column of a list's items is `list.column`.
    made_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def over(self, *sources: Topic) -> Pipeline:
        """The same pipeline over other logs, in the order of its inputs."""
        inputs = [replace(one, source=source) for one, source in zip(self.inputs, sources, strict=True)]
        return replace(self, inputs=tuple(inputs))

    def reads(self, source_input: Input) -> tuple[str, ...]:
        """The columns of the input's events that have to be decoded, each once."""
        events = source_input.events
        names = [events.source, events.seq, events.event_time, events.recorded_time]
        names += events.sign_reads
        names += [name for check in source_input.checks for name in check.reads]
        names += self.group_by
        names += [name for aggregate in source_input.aggregates for name in aggregate.reads]
        return tuple(dict.fromkeys(names))

    def step(self, source_input: Input) -> str:
        """The name of the input's combine, part of its group and transactional ids and of its progress keys."""
        return combine_step([each.source.name for each in self.inputs], source_input.source.name)

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        return tuple(aggregate for one in self.inputs for aggregate in one.aggregates)

    @property
    def key_fields(self) -> tuple[Field, ...]:
        """What names a group: its window, if there are windows, and the columns it is grouped by."""
        window = () if self.calendar is None else (timestamp("window_start"), timestamp("window_end"))
        return (*window, *(text(name) for name in self.group_by))

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every column of a partial and of a total."""
        return (*self.key_fields, *(field for aggregate in self.aggregates for field in aggregate.fields))

    def public_key(self, key: bytes, total: Total) -> bytes:
        """The key of a total's public value, given that of its group."""
        if self.calendar is not None:
            return key
        (column,) = self.group_by
        return str(total[column]).encode()

    def group_schema(self, name: str) -> dict[str, Any]:
        """One group as an Avro record; every field is nullable, as the vectorised writer writes them."""
        return {
            "type": "record",
            "name": name,
            "namespace": NAMESPACE,
            "fields": [{"name": f.name, "type": ["null", f.avro], "default": None} for f in self.fields],
        }

    def partial_schema(self) -> dict[str, Any]:
        """What one commit of combine sends to one partials partition: watermarks, then partials of groups."""
        watermark = {
            "type": "record",
            "name": "InputWatermark",
            "fields": [
                {"name": "partition", "type": "int"},
                {"name": "watermark", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            ],
        }
        return {
            "type": "record",
            "name": "Partials",
            "namespace": NAMESPACE,
            "fields": [
                {"name": "watermarks", "type": {"type": "array", "items": watermark}},
                # Last: the merge takes its bytes as they are, without looking at a record.
                {"name": "groups", "type": {"type": "array", "items": self.group_schema("Partial")}},
            ],
        }

    def state_schema(self) -> list[dict[str, Any]]:
        """Values of the state topic: the total of a group, or how far a partition is complete."""
        watermark = {
            "type": "record",
            "name": "Watermark",
            "namespace": NAMESPACE,
            "fields": [{"name": "watermark", "type": {"type": "long", "logicalType": "timestamp-micros"}}],
        }
        return [self.group_schema("Total"), watermark]
