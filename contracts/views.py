"""The views of the results database as the migrations make them, and which columns each of theirs comes from.

The migrations' own SQL is read, so nothing is said twice and no database is asked.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlglot
from alembic import command
from alembic.config import Config
from sqlglot import exp

# How a column of a view is made of a table's: as it is, computed, or only decided by it.
AS_IS, COMPUTED, WINDOW, CONDITION, JOINED, FILTERED = (
    "as it is",
    "computed",
    "window",
    "condition",
    "join",
    "filter",
)


@dataclass(frozen=True)
class Source:
    """A column of a table (or of another view), and how it is used."""

    table: str
    column: str
    use: str


@dataclass(frozen=True)
class View:
    """By column, where it comes from; and what decides which rows there are."""

    columns: dict[str, tuple[Source, ...]]
    rows: tuple[Source, ...]


@cache
def views() -> dict[str, View]:
    """By name. Raises ValueError for a view whose columns do not name their tables."""
    found = {}
    for statement in sqlglot.parse(_migrations(), dialect="postgres"):
        if isinstance(statement, exp.Create) and statement.kind == "VIEW":
            # A later migration may make it anew.
            found[statement.this.name] = _view(statement.expression)
    return found


def _migrations() -> str:
    """Every statement that creates a view, as the migrations would run it."""
    out = io.StringIO()
    config = Config(output_buffer=out)
    config.set_main_option("script_location", "contracts:migrations")
    command.upgrade(config, "head", sql=True)
    statements = (text.strip() for text in out.getvalue().split(";\n"))
    return ";\n".join(text for text in statements if text.upper().startswith("CREATE VIEW"))


def _view(select: exp.Select) -> View:
    tables = {table.alias_or_name: table.name for table in select.find_all(exp.Table)}

    def sources(within: exp.Expression, use: str) -> Iterator[Source]:
        for column in within.find_all(exp.Column):
            if column.table not in tables:
                raise ValueError(f"of which table is {column.sql()}? {select.sql()[:80]}")
            yield Source(tables[column.table], column.name, _use(column, within, use))

    columns = {}
    for projected in select.expressions:
        value = projected.unalias()
        use = AS_IS if isinstance(value, exp.Column) else COMPUTED
        columns[projected.alias_or_name] = tuple(dict.fromkeys(sources(value, use)))
    rows: list[Source] = []
    for join in select.args.get("joins") or ():
        if join.args.get("on") is not None:
            rows += sources(join.args["on"], JOINED)
    if (where := select.args.get("where")) is not None:
        rows += sources(where, FILTERED)
    return View(columns, tuple(dict.fromkeys(rows)))


def _use(column: exp.Column, within: exp.Expression, use: str) -> str:
    """Inside of a window or a condition a column decides, and its value is not shown."""
    if use in (JOINED, FILTERED):
        return use
    node: Any = column
    while node is not within and node.parent is not None:
        parent = node.parent
        if isinstance(parent, exp.Window) or (isinstance(parent, exp.If) and node is parent.this):
            return WINDOW if isinstance(parent, exp.Window) else CONDITION
        node = parent
    return use
