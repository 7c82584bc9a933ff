"""Aggregates: commutative, associative merges. Data only; `columns` and `rows` interpret them.

An event has a contribution to each of its group's aggregates; merging contributions gives a partial, merging partials
(or a total and partials) gives a total. All three have the same fields, so the order, the batching, the interpreter and
the number of workers cannot change a total. Timestamps are 64-bit microseconds since the Unix epoch, UTC. Integers wrap
at 64 bits, decimals at 128, in both interpreters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from streaming.engine.expressions import SCALE

# Sums of numeric(18,4) over any history that fits a disk stay below 38 digits.
DIGITS = 38
# Longer than any name; short enough that a total always fits into a record.
MOST_CHARACTERS = 200
_TEXT, _WHOLE = "string", "long"
_TIMESTAMP = {"type": "long", "logicalType": "timestamp-micros"}
_MONEY = {"type": "bytes", "logicalType": "decimal", "precision": DIGITS, "scale": SCALE}


@dataclass(frozen=True)
class Field:
    """One column of partials and totals: its name, and its Avro type."""

    name: str
    avro: Any

    @property
    def is_text(self) -> bool:
        return bool(self.avro == _TEXT)


def text(name: str) -> Field:
    return Field(name, _TEXT)


def whole(name: str) -> Field:
    return Field(name, _WHOLE)


def timestamp(name: str) -> Field:
    return Field(name, _TIMESTAMP)


def money(name: str) -> Field:
    return Field(name, _MONEY)


@dataclass(frozen=True)
class Sum:
    """Exact sum of a decimal column."""

    name: str
    column: str

    @property
    def fields(self) -> Sequence[Field]:
        return (money(self.name),)

    @property
    def reads(self) -> Sequence[str]:
        return (self.column,)


@dataclass(frozen=True)
class Count:
    """Facts minus reversals: a sale counts 1, its reversal -1."""

    name: str

    @property
    def fields(self) -> Sequence[Field]:
        return (whole(self.name),)

    @property
    def reads(self) -> Sequence[str]:
        return ()


@dataclass(frozen=True)
class LateStats:
    """What came late: how many facts, how much of `column`, and when the newest was recorded."""

    column: str
    recorded_at: str

    @property
    def fields(self) -> Sequence[Field]:
        return whole("late_count"), money("late_amount"), timestamp("restated_at")

    @property
    def reads(self) -> Sequence[str]:
        return (self.column, self.recorded_at)


@dataclass(frozen=True)
class ArgMax:
    """`column` of the event that is greatest by `by`, whose values are kept as `<prefix>_<name>`.

    `by` should name an event uniquely; of two that are equal by it the greater `column` is taken, so that the answer
    does not depend on the order of arrival. A text is shown, not judged: it is cut to 200 characters, and a NUL, which
    PostgreSQL cannot hold, is replaced.
    """

    column: Field
    by: tuple[Field, ...]
    prefix: str

    @property
    def fields(self) -> Sequence[Field]:
        return (self.column, *(replace(field, name=f"{self.prefix}_{field.name}") for field in self.by))

    @property
    def reads(self) -> Sequence[str]:
        return tuple(field.name for field in (self.column, *self.by))


@dataclass(frozen=True)
class NestedGroups:
    """The items of a group as a list: one for every value of `by`; a group of groups.

    Of an item's facts `sums` are added, and `latest` are those of the fact that is greatest by `order`, which should
    name a fact uniquely; of two that are equal by it, the one with the greater `latest`. An item that came to nothing
    stays. `count` adds the signs; decimals are counted in ten-thousandths: one item has at most one fact that stands,
    so 64 bits hold it. A text of `latest` is shown as `ArgMax` shows it.
    """

    name: str
    by: tuple[Field, ...]
    order: tuple[Field, ...]
    latest: tuple[Field, ...]
    sums: tuple[str, ...] = ()
    count: str | None = None

    @property
    def item(self) -> tuple[Field, ...]:
        """The columns of an item."""
        return (*self.by, *(whole(name) for name in self.added), *self.order, *self.latest)

    @property
    def added(self) -> tuple[str, ...]:
        """The columns of an item that are added."""
        return (*(() if self.count is None else (self.count,)), *self.sums)

    @property
    def fields(self) -> Sequence[Field]:
        # Nullable throughout, as the vectorised writer writes them.
        fields = [{"name": field.name, "type": ["null", field.avro]} for field in self.item]
        record = {"type": "record", "name": f"{self.name}_item", "fields": fields}
        return (Field(self.name, {"type": "array", "items": ["null", record]}),)

    @property
    def reads(self) -> Sequence[str]:
        return tuple(field.name for field in self.item if field.name != self.count)


Aggregate = Sum | Count | LateStats | ArgMax | NestedGroups
