"""A pipeline is a value: what is read, how it is grouped, windowed and aggregated, and where the answer goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import polars as pl

from contracts.calendar import Calendar, CalendarKind
from contracts.topics import Topic
from streaming.engine.aggregates import Aggregate, Field, text, timestamp

NAMESPACE = "electrored"


@dataclass(frozen=True)
class Check:
    """A rule that every event must satisfy; one that does not goes to the dead letters with the reason."""

    reason: str
    holds: pl.Expr
    reads: tuple[str, ...]


@dataclass(frozen=True)
class EventColumns:
    """Which columns of an event carry what the engine has to know."""

    source: str
    seq: str
    event_time: str
    recorded_time: str
    # 1 for a fact, -1 for its reversal.
    sign: pl.Expr
    sign_reads: str


@dataclass(frozen=True)
class Parameters:
    """What a generation was created with; changing one makes another generation."""

    time_zone: str
    grace: timedelta
    calendar: CalendarKind

    def to_json(self) -> dict[str, Any]:
        return {
            "time_zone": self.time_zone,
            "grace_seconds": self.grace.total_seconds(),
            "calendar": self.calendar,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(value["time_zone"], timedelta(seconds=value["grace_seconds"]), value["calendar"])

    @property
    def windows(self) -> Calendar:
        return Calendar(self.calendar, self.time_zone)


@dataclass(frozen=True)
class Pipeline:
    """The answer to one question. Building it starts nothing; a worker or the test driver runs it.

    `version` names the logic: a generation is pinned to it, and its partial and state schemas never change.
    """

    name: str
    version: int
    source: Topic
    output: Topic
    table: str
    events: EventColumns
    checks: tuple[Check, ...]
    group_by: tuple[str, ...]
    calendar: CalendarKind
    aggregates: tuple[Aggregate, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The event columns that have to be decoded, each once."""
        events = self.events
        names = [events.source, events.seq, events.event_time, events.recorded_time, events.sign_reads]
        names += [name for check in self.checks for name in check.reads]
        names += self.group_by
        names += [name for aggregate in self.aggregates for name in aggregate.reads]
        return tuple(dict.fromkeys(names))

    @property
    def key_fields(self) -> tuple[Field, ...]:
        """What names a group: its window and the columns it is grouped by."""
        return (timestamp("window_start"), timestamp("window_end"), *(text(name) for name in self.group_by))

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every column of a partial and of a total."""
        return (*self.key_fields, *(field for aggregate in self.aggregates for field in aggregate.fields))

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
