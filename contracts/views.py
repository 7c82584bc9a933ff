"""Column lineage of the views of the results database.

Derived from the migrations' SQL, so nothing is declared twice and no database is needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import sqlglot
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlglot import exp
from sqlglot.optimizer.annotate_types import annotate_types

from contracts.tables import metadata, sql_type

# How a column of a view depends on a table's: as it is, computed, aggregated, or only influenced by it.
AS_IS, COMPUTED, AGGREGATED, WINDOW, CONDITION, JOINED, FILTERED, GROUPED, SORTED = (
    "as it is",
    "computed",
    "aggregated",
    "window",
    "condition",
    "join",
    "filter",
    "group",
    "sort",
)
_VALUES = (AS_IS, COMPUTED, AGGREGATED)
# Clauses whose columns influence the rows, and give no value.
_CLAUSES = {
    exp.Where: FILTERED,
    exp.Having: FILTERED,
    exp.Join: JOINED,
    exp.Group: GROUPED,
    exp.Order: SORTED,
}
# Where sqlglot and PostgreSQL's `format_type` call a type differently.
_TYPES = {"int": "integer", "timestamptz": "timestamp with time zone"}
_OF_VIEWS = re.compile(r"(CREATE|DROP)\b[^(]*?\bVIEW\b", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A column of a table (or of another view), and how it is used."""

    table: str
    column: str
    use: str


@dataclass(frozen=True)
class View:
    """Sources and type of each column; the columns that select the rows; the migration that created it."""

    columns: dict[str, tuple[Source, ...]]
    types: dict[str, str]
    rows: tuple[Source, ...]
    code: str


@cache
def views() -> dict[str, View]:
    """By name. Raises ValueError for a view whose columns do not name their tables, or whose types are not known."""
    by_name: dict[str, View] = {}
    types = {
        table.name: {column.name: sql_type(column) for column in table.columns}
        for table in metadata.tables.values()
    }
    for code, text in _migrations():
        for statement in sqlglot.parse(text, dialect="postgres"):
            if isinstance(statement, exp.Drop):
                for table in statement.find_all(exp.Table):
                    del by_name[table.name]
            elif isinstance(statement, exp.Create):
                # A later migration may create it anew.
                name = statement.this.name
                by_name[name] = replace(_view(statement.expression, types), code=code)
                types[name] = by_name[name].types
    return by_name


def _migrations() -> Iterator[tuple[str, str]]:
    """Each migration's file, and its statements that create or drop views."""
    config = Config()
    config.set_main_option("script_location", "contracts:migrations")
    revisions = ScriptDirectory.from_config(config).walk_revisions()
    for revision in reversed(list(revisions)):
        config.output_buffer = out = io.StringIO()
        command.upgrade(config, f"{revision.down_revision or 'base'}:{revision.revision}", sql=True)
        # Alembic's own output between the statements is comments.
        lines = (line for line in out.getvalue().splitlines() if not line.startswith("--"))
        statements = (text.strip() for text in "\n".join(lines).split(";\n"))
        text = ";\n".join(text for text in statements if _OF_VIEWS.match(text))
        yield f"contracts/migrations/versions/{Path(revision.path).name}", text


def _view(select: exp.Select, types: dict[str, dict[str, str]]) -> View:
    tables = {table.alias_or_name: table.name for table in select.find_all(exp.Table)}
    schema = sqlglot.MappingSchema({name: types[name] for name in tables.values()}, dialect="postgres")
    annotate_types(select, schema=schema, dialect="postgres")

    def sources(within: exp.Expression, use: str) -> Iterator[Source]:
        for column in within.find_all(exp.Column):
            if column.table not in tables:
                raise ValueError(f"of which table is {column.sql()}? {select.sql()[:80]}")
            source = Source(tables[column.table], column.name, _use(column, within, use))
            yield source
            if source.use in _VALUES and _is_coalesced(column, within):
                yield replace(source, use=CONDITION)

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
    shown = {projected.alias_or_name: _type(projected.unalias()) for projected in select.expressions}
    return View(columns, shown, tuple(dict.fromkeys(rows)), "")


def _use(column: exp.Expression, within: exp.Expression, use: str) -> str:
    """How the column is used: in a clause, a window or a condition it influences the value, else it is part of it."""
    if use in (JOINED, FILTERED):
        return use
    node: Any = column
    while node is not within and node.parent is not None:
        parent = node.parent
        # The argument of a window function is a value; the columns of its OVER clause are not.
        if isinstance(parent, exp.Window) and node is not parent.this:
            return WINDOW
        if isinstance(parent, exp.If) and node is parent.this:
            return CONDITION
        in_window = isinstance(parent, exp.Order) and isinstance(parent.parent, exp.Window)
        if type(parent) in _CLAUSES and not in_window:
            return _CLAUSES[type(parent)]
        if isinstance(parent, exp.AggFunc):
            use = AGGREGATED
        node = parent
    return use


def _is_coalesced(column: exp.Expression, within: exp.Expression) -> bool:
    """Whether the column is the first argument of a coalesce: null, it selects another value."""
    node: Any = column
    while node is not within and node.parent is not None:
        if isinstance(node.parent, exp.Coalesce) and node is node.parent.this:
            return True
        node = node.parent
    return False


def _type(value: exp.Expression) -> str:
    """A type by PostgreSQL's name. Raises ValueError for a type that sqlglot does not infer."""
    # sqlglot infers no type for `->>`.
    if isinstance(value, exp.JSONExtractScalar):
        return "text"
    kind = value.type
    if kind is None or kind.is_type(exp.DataType.Type.UNKNOWN):
        raise ValueError(f"of which type is {value.sql(dialect='postgres')}?")
    name = kind.sql(dialect="postgres").lower().replace(", ", ",")
    return _TYPES.get(name, name.replace("decimal", "numeric"))
