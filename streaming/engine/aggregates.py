"""Aggregates: commutative, associative merges, each defined once as polars expressions.

`collect` turns the events of a group into a partial; `join` turns partials (or a total and partials) into one. Both
give the same fields, so the order, the batching and the number of workers cannot change a total. In frames, timestamps
are 64-bit microseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import polars as pl

# Sums of numeric(18,4) over any history that fits a disk stay below 38 digits.
MONEY = pl.Decimal(38, 4)
# Longer than any name; short enough that a total always fits into a record.
MOST_CHARACTERS = 200


@dataclass(frozen=True)
class Field:
    """One column: its name, its Avro type and its type in a frame."""

    name: str
    avro: Any
    dtype: Any


def text(name: str) -> Field:
    return Field(name, "string", pl.String)


def whole(name: str) -> Field:
    return Field(name, "long", pl.Int64)


def timestamp(name: str) -> Field:
    return Field(name, {"type": "long", "logicalType": "timestamp-micros"}, pl.Int64)


def money(name: str) -> Field:
    return Field(name, {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 4}, MONEY)


class Aggregate(Protocol):
    """A merge over the events of a group. Implementations are values without state."""

    @property
    def fields(self) -> Sequence[Field]:
        """The columns that hold it, in a partial and in a total."""

    @property
    def reads(self) -> Sequence[str]:
        """The event columns it needs."""

    def collect(self) -> Sequence[pl.Expr]:
        """Events of a group → fields. Beside the event columns there are `sign` (1 or -1) and `is_late`."""

    def join(self) -> Sequence[pl.Expr]:
        """Fields of several partials of a group → fields."""


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

    def collect(self) -> Sequence[pl.Expr]:
        return (pl.col(self.column).sum().cast(MONEY).alias(self.name),)

    def join(self) -> Sequence[pl.Expr]:
        return (pl.col(self.name).sum(),)


@dataclass(frozen=True)
class Count:
    """Facts that stand: a sale counts 1, its reversal -1."""

    name: str

    @property
    def fields(self) -> Sequence[Field]:
        return (whole(self.name),)

    @property
    def reads(self) -> Sequence[str]:
        return ()

    def collect(self) -> Sequence[pl.Expr]:
        return (pl.col("sign").sum().cast(pl.Int64).alias(self.name),)

    def join(self) -> Sequence[pl.Expr]:
        return (pl.col(self.name).sum(),)


@dataclass(frozen=True)
class Late:
    """What came late: how many facts, how much of `column`, and when the newest was recorded."""

    column: str
    recorded_at: str

    @property
    def fields(self) -> Sequence[Field]:
        return whole("late_count"), money("late_amount"), timestamp("restated_at")

    @property
    def reads(self) -> Sequence[str]:
        return (self.column, self.recorded_at)

    def collect(self) -> Sequence[pl.Expr]:
        return (
            pl.col("is_late").sum().cast(pl.Int64).alias("late_count"),
            pl.when("is_late").then(pl.col(self.column)).sum().cast(MONEY).alias("late_amount"),
            pl.when("is_late").then(pl.col(self.recorded_at)).max().alias("restated_at"),
        )

    def join(self) -> Sequence[pl.Expr]:
        return pl.col("late_count").sum(), pl.col("late_amount").sum(), pl.col("restated_at").max()


@dataclass(frozen=True)
class GreatestBy:
    """`column` of the event that is greatest by `by`, whose values are kept as `<prefix>_<name>`.

    `by` has to name an event uniquely, or the answer would depend on the order of arrival. A text is shown, not judged:
    it is cut to 200 characters, and a NUL, which PostgreSQL cannot hold, is replaced.
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

    def collect(self) -> Sequence[pl.Expr]:
        # polars' max() of a struct answers nulls; sort_by costs 0.1 µs an event and is right.
        order = [field.name for field in self.by]
        newest = [
            pl.col(name).sort_by(order).last().alias(field.name)
            for name, field in zip(self.reads, self.fields, strict=True)
        ]
        if self.column.dtype == pl.String:
            newest[0] = newest[0].str.head(MOST_CHARACTERS).str.replace_all("\0", "\ufffd", literal=True)
        return newest

    def join(self) -> Sequence[pl.Expr]:
        order = [field.name for field in self.fields[1:]]
        return [pl.col(field.name).sort_by(order).last() for field in self.fields]
