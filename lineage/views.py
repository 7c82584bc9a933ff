"""Column lineage of the views of the results database.

Derived from the migrations' SQL, so nothing is declared twice and no database is needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
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

from contracts import datasets
from contracts.tables import metadata
from lineage.model import Column, InputField, OutputDataset, Transformation, table_schema

_VALUES = (Transformation.IDENTITY, Transformation.TRANSFORMATION, Transformation.AGGREGATION)
# Clauses whose columns influence the rows, and give no value.
_CLAUSES = {
    exp.Where: Transformation.FILTER,
    exp.Having: Transformation.FILTER,
    exp.Join: Transformation.JOIN,
    exp.Group: Transformation.GROUP_BY,
    exp.Order: Transformation.SORT,
}
# Where sqlglot and PostgreSQL's `format_type` call a type differently.
_TYPES = {"int": "integer", "timestamptz": "timestamp with time zone"}
_OF_VIEWS = re.compile(r"(CREATE|DROP)\b[^(]*?\bVIEW\b", re.IGNORECASE)


@dataclass(frozen=True)
class View:
    """Where a view's columns come from, their types, and the migration that created it."""

    output: OutputDataset
    code: str


@cache
def views() -> dict[str, View]:
    """By name. Raises ValueError for a view whose columns do not name their tables, or whose types are not known."""
    by_name: dict[str, View] = {}
    schemas = {table.name: table_schema(table) for table in metadata.tables.values()}
    for code, text in _migrations():
        for statement in sqlglot.parse(text, dialect="postgres"):
            if isinstance(statement, exp.Drop):
                for table in statement.find_all(exp.Table):
                    del by_name[table.name]
            elif isinstance(statement, exp.Create):
                # A later migration may create it anew.
                name = statement.this.name
                output = _output(name, statement.expression, schemas)
                by_name[name], schemas[name] = View(output, code), output.schema
    return by_name


def schema(name: str) -> tuple[Column, ...]:
    """The columns of a table or of a view."""
    table = metadata.tables.get(name)
    return views()[name].output.schema if table is None else table_schema(table)


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


def _output(name: str, select: exp.Select, schemas: Mapping[str, tuple[Column, ...]]) -> OutputDataset:
    tables = {table.alias_or_name: table.name for table in select.find_all(exp.Table)}
    types: dict[str, object] = {
        table: {column.name: column.type for column in schemas[table]} for table in tables.values()
    }
    annotate_types(select, sqlglot.MappingSchema(types, dialect="postgres"), dialect="postgres")

    def inputs(within: exp.Expression, clause: Transformation | None = None) -> Iterator[InputField]:
        for column in within.find_all(exp.Column):
            if column.table not in tables:
                raise ValueError(f"of which table is {column.sql()}? {select.sql()[:80]}")
            kind = clause or _kind(column, within)
            field = InputField(datasets.table(tables[column.table]), column.name, kind)
            yield field
            # Null, the first argument of a coalesce selects another value.
            if kind in _VALUES and any(
                isinstance(parent, exp.Coalesce) and node is parent.this
                for node, parent in _upwards(column, within)
            ):
                yield replace(field, kind=Transformation.CONDITIONAL)

    values = {projected.alias_or_name: projected.unalias() for projected in select.expressions}
    rows: list[InputField] = []
    for join in select.args.get("joins") or ():
        if (on := join.args.get("on")) is not None:
            rows += inputs(on, Transformation.JOIN)
    if (where := select.args.get("where")) is not None:
        rows += inputs(where, Transformation.FILTER)
    return OutputDataset(
        datasets.table(name),
        {column: tuple(dict.fromkeys(inputs(value))) for column, value in values.items()},
        tuple(dict.fromkeys(rows)),
        tuple(Column(column, _type(value)) for column, value in values.items()),
    )


def _upwards(node: Any, within: exp.Expression) -> Iterator[tuple[exp.Expression, exp.Expression]]:
    """The node and each expression around it, with the one that it stands in, up to `within`."""
    while node is not within:
        yield node, node.parent
        node = node.parent


def _kind(column: exp.Column, within: exp.Expression) -> Transformation:
    """In a clause, a window or a condition the column influences the value, else it is part of it."""
    kind = Transformation.IDENTITY if column is within else Transformation.TRANSFORMATION
    for node, parent in _upwards(column, within):
        # The argument of a window function is a value; the columns of its OVER clause are not.
        if isinstance(parent, exp.Window) and node is not parent.this:
            return Transformation.WINDOW
        if isinstance(parent, exp.If) and node is parent.this:
            return Transformation.CONDITIONAL
        if type(parent) in _CLAUSES and not isinstance(parent.parent, exp.Window):
            return _CLAUSES[type(parent)]
        if isinstance(parent, exp.AggFunc):
            kind = Transformation.AGGREGATION
    return kind


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
