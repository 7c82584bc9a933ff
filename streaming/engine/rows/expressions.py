"""Conditions and signs as functions of a row."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, assert_never

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
    Text,
    Whole,
)

Row = Mapping[str, Any]

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt}


def condition(one: Condition) -> Callable[[Row], bool]:
    """Whether it holds for a row; what is unknown (null) does not."""
    match one:
        case IsIn(Text(name), values):
            return lambda row: row[name] in values
        case IsKnown(Text(name)):
            return lambda row: row[name] is not None
        case Matches(Text(name), pattern):
            # Not `$`, before which Python lets a line feed stand.
            whole = re.compile(pattern).fullmatch
            return lambda row: (text := row[name]) is not None and whole(text) is not None
        case Lacks(Text(name), part):
            return lambda row: (text := row[name]) is not None and part not in text
        case Compare(left, symbol, right):
            read, compare = _number(left), _OPERATORS[symbol]
            return lambda row: (number := read(row)) is not None and compare(number, right)
        case Between(Whole(name), least, behind):
            return lambda row: (number := row[name]) is not None and least <= number < behind
        case _:
            assert_never(one)


def sign(one: Sign) -> Callable[[Row], int]:
    if isinstance(one, Choose):
        holds, then, otherwise = condition(one.condition), one.then, one.otherwise
        return lambda row: then if holds(row) else otherwise
    return lambda row: one


def _number(one: Length | Absolute) -> Callable[[Row], int | None]:
    name = one.column.name
    if isinstance(one, Length):
        return lambda row: None if (text := row[name]) is None else len(text.encode())
    return lambda row: None if (amount := row[name]) is None else abs(amount)
