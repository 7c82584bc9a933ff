"""Aggregates over frames: events → partials of their groups, partials and totals → one for each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import polars as pl

from streaming.engine.aggregates import (
    DIGITS,
    MOST_CHARACTERS,
    Aggregate,
    ArgMax,
    Count,
    Field,
    LateStats,
    NestedGroups,
    Sum,
)
from streaming.engine.expressions import SCALE
from streaming.engine.pipeline import Input, Pipeline

MONEY = pl.Decimal(DIGITS, SCALE)
_KEPT = "_kept"


def accumulate(pipeline: Pipeline, source_input: Input, events: pl.DataFrame) -> pl.DataFrame:
    """Events of an input → partials of their groups; what other inputs contribute is null.

    Beside the event columns there are `sign` (1 or -1) and, in a pipeline with windows, `is_late`.
    """
    key = [field.name for field in pipeline.key_fields]
    plain = [e for one in source_input.aggregates if not isinstance(one, NestedGroups) for e in _of(one)]
    parts = [_collected(one, events, key) for one in source_input.aggregates if isinstance(one, NestedGroups)]
    return _whole(pipeline, _grouped(events, key, plain, parts, source_input.aggregates))


def merge(pipeline: Pipeline, groups: pl.DataFrame, within: Sequence[str] = ()) -> pl.DataFrame:
    """Partials and totals → one for each group; `within` are columns that keep groups apart besides."""
    key = [*within, *(field.name for field in pipeline.key_fields)]
    plain = [e for one in pipeline.aggregates if not isinstance(one, NestedGroups) for e in _merged(one)]
    lists = [one for one in pipeline.aggregates if isinstance(one, NestedGroups)]
    # One input's commits carry nothing of the other's.
    parts = [_united(one, groups, key) for one in lists if groups[one.name].null_count() < groups.height]
    return _whole(pipeline, _grouped(groups, key, plain, parts, pipeline.aggregates))


def _of(one: Sum | Count | LateStats | ArgMax) -> Sequence[pl.Expr]:
    """Events of a group → fields."""
    match one:
        case Sum(name, column):
            return (pl.col(column).sum().cast(MONEY).alias(name),)
        case Count(name):
            return (pl.col("sign").sum().cast(pl.Int64).alias(name),)
        case LateStats(column, recorded_at):
            return (
                pl.col("is_late").sum().cast(pl.Int64).alias("late_count"),
                pl.when("is_late").then(pl.col(column)).sum().cast(MONEY).alias("late_amount"),
                pl.when("is_late").then(pl.col(recorded_at)).max().alias("restated_at"),
            )
        case ArgMax():
            columns = [pl.col(name) for name in one.reads]
            if one.column.is_text:
                columns[0] = _shown(columns[0])
            return _greatest(
                one, [column.alias(field.name) for column, field in zip(columns, one.fields, strict=True)]
            )
        case _:
            assert_never(one)


def _merged(one: Sum | Count | LateStats | ArgMax) -> Sequence[pl.Expr]:
    """Fields of several partials of a group → fields."""
    match one:
        case Sum(name, _) | Count(name):
            return (pl.col(name).sum(),)
        case LateStats():
            return pl.col("late_count").sum(), pl.col("late_amount").sum(), pl.col("restated_at").max()
        case ArgMax():
            return _greatest(one, [pl.col(field.name) for field in one.fields])
        case _:
            assert_never(one)


def _greatest(one: ArgMax, fields: Sequence[pl.Expr]) -> Sequence[pl.Expr]:
    """As one struct: it is sorted once, and not once for each field. (polars' max() of a struct returns nulls.)"""
    column, *order = fields
    return (pl.struct(fields).sort_by([*order, column]).last().alias(_struct_of(one)),)


def _struct_of(one: ArgMax) -> str:
    return f"_{one.column.name}"


def _shown(texts: pl.Expr) -> pl.Expr:
    return texts.str.head(MOST_CHARACTERS).str.replace_all("\0", "\ufffd", literal=True)


def _collected(one: NestedGroups, events: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Events → the list of each group."""
    item = {field.name for field in one.item}
    columns = [pl.col(name) for name in key if name not in item]
    if one.count is not None:
        columns.append(pl.col("sign").alias(one.count))
    columns += [_taken(events, name) for name in one.reads]
    shown = [field.name for field in one.latest if field.is_text]
    return _listed(one, events.select(columns).with_columns(_shown(pl.col(shown))), key)


def _united(one: NestedGroups, groups: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Lists of several partials of each group → one."""
    lists = groups.select(*key, one.name).filter(pl.col(one.name).is_not_null())
    return _listed(one, lists.explode(one.name).unnest(one.name), key)


def _listed(one: NestedGroups, facts: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    by = [field.name for field in one.by]
    kept = [field.name for field in (*one.order, *one.latest)]
    # As one struct, which is cheaper than to sort all facts. In order of its keys, so that equal lists are equal bytes.
    items = (
        facts.group_by(*key, *by)
        .agg(*(pl.col(name).sum() for name in one.added), pl.struct(kept).sort_by(kept).last().alias(_KEPT))
        .unnest(_KEPT)
        .sort(by)
    )
    return items.group_by(key).agg(pl.struct(field.name for field in one.item).alias(one.name))


def _taken(events: pl.DataFrame, name: str) -> pl.Expr:
    """A column as an item has it; decimals as ten-thousandths."""
    dtype, column = events.schema[name], pl.col(name)
    if isinstance(dtype, pl.Decimal):
        return column.to_physical().cast(pl.Int64)
    return column


def _grouped(
    frame: pl.DataFrame,
    key: Sequence[str],
    plain: Sequence[pl.Expr],
    parts: Sequence[pl.DataFrame],
    aggregates: Sequence[Aggregate],
) -> pl.DataFrame:
    """Plain aggregates and lists of the same groups side by side."""
    structs = [_struct_of(one) for one in aggregates if isinstance(one, ArgMax)]
    flat = []
    if plain:
        grouped = frame.group_by(key).agg(plain)
        flat.append(grouped.unnest(structs) if structs else grouped)
    first, *others = [*flat, *parts]
    for other in others:
        first = first.join(other, on=list(key), how="full", coalesce=True)
    return first


def _whole(pipeline: Pipeline, groups: pl.DataFrame) -> pl.DataFrame:
    """With all fields of the pipeline."""
    missing = [field for field in pipeline.fields if field.name not in groups.columns]
    if not missing:
        return groups
    return groups.with_columns(pl.lit(None, _dtype(field)).alias(field.name) for field in missing)


def _dtype(field: Field) -> Any:
    """The type of a field's column."""
    if isinstance(field.avro, str):
        return pl.String if field.is_text else pl.Int64
    match field.avro["type"]:
        case "array":
            _, item = field.avro["items"]
            fields = [Field(one["name"], one["type"][1]) for one in item["fields"]]
            return pl.List(pl.Struct({one.name: _dtype(one) for one in fields}))
        case "bytes":
            return MONEY
        case _:
            return pl.Int64
