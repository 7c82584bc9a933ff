"""Conditions and signs as polars' expressions."""

from __future__ import annotations

import operator
from typing import assert_never

import polars as pl

from streaming.engine.expressions import (
    Absolute,
    Between,
    Choose,
    Compare,
    Condition,
    IsIn,
    IsKnown,
    Lacks,
    Length,
    Matches,
    Sign,
)

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt}


def condition(one: Condition) -> pl.Expr:
    match one:
        case IsIn(column, values):
            return pl.col(column.name).is_in(values)
        case IsKnown(column):
            return pl.col(column.name).is_not_null()
        case Matches(column, pattern):
            return pl.col(column.name).str.contains(f"^(?:{pattern})$")
        case Lacks(column, part):
            return ~pl.col(column.name).str.contains(part, literal=True)
        case Compare(left, symbol, right):
            comparison: pl.Expr = _OPERATORS[symbol](*_compared(left, right))
            return comparison
        case Between(column, least, behind):
            return pl.col(column.name).is_between(least, behind, closed="left")
        case _:
            assert_never(one)


def sign(one: Sign) -> pl.Expr:
    if isinstance(one, Choose):
        chosen = pl.when(condition(one.condition)).then(one.then).otherwise(one.otherwise)
        return chosen.cast(pl.Int64)
    return pl.lit(one, pl.Int64)


def _compared(left: Length | Absolute, right: int) -> tuple[pl.Expr, pl.Expr]:
    if isinstance(left, Length):
        return pl.col(left.column.name).str.len_bytes(), pl.lit(right)
    return pl.col(left.column.name).to_physical().abs(), pl.lit(right, pl.Int128)
