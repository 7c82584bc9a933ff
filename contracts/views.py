"""The views of the results database as the migrations make them, and which columns each of theirs comes from.

The migrations' own SQL is read, so nothing is said twice and no database is asked.
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

# How a column of a view is made of a table's: as it is, computed, aggregated, or only decided by it.
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
# Clauses whose columns decide, and give no value.
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
    """By column, where it comes from and its type; what decides which rows there are; the migration that made it."""

    columns: dict[str, tuple[Source, ...]]
    types: dict[str, str]
    rows: tuple[Source, ...]
    code: str


@cache
def views() -> dict[str, View]:
    """By name. Raises ValueError for a view whose columns do not name their tables, or whose types are not known."""
    found: dict[str, View] = {}
    types = {
        table.name: {column.name: sql_type(column) for column in table.columns}
        for table in metadata.tables.values()
    }
    for code, text in _migrations():
        for statement in sqlglot.parse(text, dialect="postgres"):
            if isinstance(statement, exp.Drop):
                for table in statement.find_all(exp.Table):
                    del found[table.name]
            elif isinstance(statement, exp.Create):
                # A later migration may make it anew.
                name = statement.this.name
                found[name] = replace(_view(statement.expression, types), code=code)
                types[name] = found[name].types
    return found


def _migrations() -> Iterator[tuple[str, str]]:
    """Each migration's file, and its statements that make or drop views, as it would run them."""
    config = Config()
    config.set_main_option("script_location", "contracts:migrations")
    revisions = ScriptDirectory.from_config(config).walk_revisions()
    for revision in reversed(list(revisions)):
        config.output_buffer = out = io.StringIO()
        command.upgrade(config, f"{revision.down_revision or 'base'}:{revision.revision}", sql=True)
        # What alembic says between the statements are comments.
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
            found = Source(tables[column.table], column.name, _use(column, within, use))
            yield found
            if found.use in _VALUES and _is_coalesced(column, within):
                yield replace(found, use=CONDITION)

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
    """Of a clause, a window or a condition a column decides, wherever that stands; its value is not shown."""
    if use in (JOINED, FILTERED):
        return use
    node: Any = column
    while node is not within and node.parent is not None:
        parent = node.parent
        # What a window function is given is shown; what it goes over decides.
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
    """Whether it decides, by being null, that another value is shown; if it is not, it is shown itself."""
    node: Any = column
    while node is not within and node.parent is not None:
        if isinstance(node.parent, exp.Coalesce) and node is node.parent.this:
            return True
        node = node.parent
    return False


def _type(value: exp.Expression) -> str:
    """A type as PostgreSQL calls it. Raises ValueError for what sqlglot cannot say."""
    # sqlglot leaves open what `->>` gives.
    if isinstance(value, exp.JSONExtractScalar):
        return "text"
    kind = value.type
    if kind is None or kind.is_type(exp.DataType.Type.UNKNOWN):
        raise ValueError(f"of which type is {value.sql(dialect='postgres')}?")
    said = kind.sql(dialect="postgres").lower().replace(", ", ",")
    return _TYPES.get(said, said.replace("decimal", "numeric"))
