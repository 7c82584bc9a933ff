"""Aggregates: commutative, associative merges, each defined once as polars expressions.

`accumulate` turns the events of a group into a partial; `merge` turns partials (or a total and partials) into one. Both
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

    def accumulate(self) -> Sequence[pl.Expr]:
        """Events of a group → fields. Beside the event columns there are `sign` (1 or -1) and `is_late`."""

    def merge(self) -> Sequence[pl.Expr]:
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

    def accumulate(self) -> Sequence[pl.Expr]:
        return (pl.col(self.column).sum().cast(MONEY).alias(self.name),)

    def merge(self) -> Sequence[pl.Expr]:
        return (pl.col(self.name).sum(),)


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

    def accumulate(self) -> Sequence[pl.Expr]:
        return (pl.col("sign").sum().cast(pl.Int64).alias(self.name),)

    def merge(self) -> Sequence[pl.Expr]:
        return (pl.col(self.name).sum(),)


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

    def accumulate(self) -> Sequence[pl.Expr]:
        return (
            pl.col("is_late").sum().cast(pl.Int64).alias("late_count"),
            pl.when("is_late").then(pl.col(self.column)).sum().cast(MONEY).alias("late_amount"),
            pl.when("is_late").then(pl.col(self.recorded_at)).max().alias("restated_at"),
        )

    def merge(self) -> Sequence[pl.Expr]:
        return pl.col("late_count").sum(), pl.col("late_amount").sum(), pl.col("restated_at").max()


@dataclass(frozen=True)
class ArgMax:
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

    def accumulate(self) -> Sequence[pl.Expr]:
        # polars' max() of a struct returns nulls; sort_by costs 0.1 µs an event and is right.
        order = [field.name for field in self.by]
        newest = [
            pl.col(name).sort_by(order).last().alias(field.name)
            for name, field in zip(self.reads, self.fields, strict=True)
        ]
        if self.column.dtype == pl.String:
            newest[0] = newest[0].str.head(MOST_CHARACTERS).str.replace_all("\0", "\ufffd", literal=True)
        return newest

    def merge(self) -> Sequence[pl.Expr]:
        order = [field.name for field in self.fields[1:]]
        return [pl.col(field.name).sort_by(order).last() for field in self.fields]


@dataclass(frozen=True)
class NestedGroups:
    """The items of a group as a list: one for every value of `by`; a group of groups.

    Of an item's facts `sums` are added, and `latest` are those of the fact that is greatest by `order`, which has to
    name a fact uniquely. An item that came to nothing stays. `count` adds the signs; decimals are counted in
    ten-thousandths: one item has at most one fact that stands, so 64 bits hold it.
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
        counted = () if self.count is None else (whole(self.count),)
        return (*self.by, *counted, *(whole(name) for name in self.sums), *self.order, *self.latest)

    @property
    def fields(self) -> Sequence[Field]:
        # Nullable throughout, as the vectorised writer writes them.
        fields = [{"name": field.name, "type": ["null", field.avro]} for field in self.item]
        record = {"type": "record", "name": f"{self.name}_item", "fields": fields}
        dtype = pl.List(pl.Struct({field.name: field.dtype for field in self.item}))
        return (Field(self.name, {"type": "array", "items": ["null", record]}, dtype),)

    @property
    def reads(self) -> Sequence[str]:
        return tuple(field.name for field in self.item if field.name != self.count)

    def accumulate(self, events: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
        """Events → the list of each group."""
        columns = [pl.col(name) for name in key if name not in {field.name for field in self.item}]
        if self.count is not None:
            columns.append(pl.col("sign").alias(self.count))
        columns += [_taken(events, name) for name in self.reads]
        shown = [field.name for field in self.latest if field.dtype == pl.String]
        cut = pl.col(shown).str.head(MOST_CHARACTERS).str.replace_all("\0", "\ufffd", literal=True)
        return self._listed(events.select(columns).with_columns(cut), key)

    def merge(self, groups: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
        """Lists of several partials of each group → one."""
        lists = groups.select(*key, self.name).filter(pl.col(self.name).is_not_null())
        return self._listed(lists.explode(self.name).unnest(self.name), key)

    def _listed(self, facts: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
        by = [field.name for field in self.by]
        added = [field.name for field in self.item if field.name in (self.count, *self.sums)]
        kept = [field.name for field in (*self.order, *self.latest)]
        # Sorted once: the order within a group is kept, and `last` is cheap. So is a list in order of its keys.
        items = (
            facts.sort([field.name for field in self.order])
            .group_by(*key, *by)
            .agg(*(pl.col(name).sum() for name in added), *(pl.col(name).last() for name in kept))
            .sort(by)
        )
        return items.group_by(key).agg(pl.struct(field.name for field in self.item).alias(self.name))


def _taken(events: pl.DataFrame, name: str) -> pl.Expr:
    """A column as an item has it; decimals as ten-thousandths."""
    dtype, column = events.schema[name], pl.col(name)
    if isinstance(dtype, pl.Decimal):
        return column.to_physical().cast(pl.Int64)
    return column


def accumulate(
    events: pl.DataFrame, key: Sequence[str], aggregates: Sequence[Aggregate | NestedGroups]
) -> pl.DataFrame:
    """Events → one row of fields for each group."""
    plain = [expr for one in aggregates if not isinstance(one, NestedGroups) for expr in one.accumulate()]
    parts = [one.accumulate(events, key) for one in aggregates if isinstance(one, NestedGroups)]
    return _side_by_side([events.group_by(key).agg(plain)] if plain else [], parts, key)


def merge(
    groups: pl.DataFrame, key: Sequence[str], aggregates: Sequence[Aggregate | NestedGroups]
) -> pl.DataFrame:
    """Partials and totals → one row for each group; without the fields that are null in all of them."""
    plain = [expr for one in aggregates if not isinstance(one, NestedGroups) for expr in one.merge()]
    lists = [one for one in aggregates if isinstance(one, NestedGroups)]
    # One input's commits carry nothing of the other's.
    parts = [one.merge(groups, key) for one in lists if groups[one.name].null_count() < groups.height]
    return _side_by_side([groups.group_by(key).agg(plain)] if plain else [], parts, key)


def _side_by_side(
    plain: Sequence[pl.DataFrame], parts: Sequence[pl.DataFrame], key: Sequence[str]
) -> pl.DataFrame:
    first, *others = [*plain, *parts]
    for other in others:
        first = first.join(other, on=list(key), how="full", coalesce=True)
    return first
