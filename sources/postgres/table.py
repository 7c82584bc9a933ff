"""Checks by the catalog that the snapshot and the stream have every row and change of the sales table."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from kafka_client.errors import Refused
from sources.postgres.database import Database
from sources.postgres.rows import COLUMNS
from sources.postgres.shape import Shape
from sources.postgres.stream import check_columns

# PostgreSQL 18 can publish generated columns, and since then refuses changes whose old row would lack one.
PUBLISHES_GENERATED = 180_000
KINDS = {"p": "a partitioned table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass(frozen=True)
class Condition:
    """Properties of the table that may change at any time, beside its shape.

    `hidden`: whether a policy of the table applies to capture's role. `columns`: its columns with how each is
    generated ('' is not at all, s stored, v virtual).
    """

    is_logged: bool
    is_partition: bool
    identity: str
    hidden: bool
    children: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]


def condition(database: Database, oid: int) -> Condition | None:
    """None when the table is gone."""
    rows = database.ask(
        "select c.relpersistence = 'p', c.relispartition, c.relreplident, row_security_active(c.oid), "
        "array(select inhrelid::regclass::text from pg_inherits where inhparent = c.oid order by 1), "
        "array(select array[attname::text, attgenerated::text] from pg_attribute where attrelid = c.oid "
        "and attnum > 0 and not attisdropped order by attnum) from pg_class c where c.oid = %s",
        (oid,),
    )
    if not rows:
        return None
    ((is_logged, is_partition, identity, hidden, children, columns),) = rows
    return Condition(
        is_logged,
        is_partition,
        identity,
        hidden,
        tuple(children),
        tuple((name, how) for name, how in columns),
    )


def find(database: Database) -> int:
    """The table's oid. Raises Refused when there is none that could be captured."""
    rows = database.ask(
        "select c.oid, c.relkind, has_table_privilege(c.oid, 'select') from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s",
        (database.schema, database.table),
    )
    if not rows:
        raise Refused(f"there is no table {database.name} in the database {database.database}")
    ((oid, kind, may_read),) = rows
    if kind != "r":
        raise Refused(
            f"{database.name} is {KINDS.get(kind, 'no table')}; it must be an ordinary table: put the sales into one, "
            "publish that, and name it in ELECTRORED_SALES_TABLE"
        )
    if not may_read:
        raise Refused(f'the role may not read: grant select on {database.name} to "{database.user}";')
    return int(oid)


def check(
    database: Database, oid: int, shape: Shape, condition: Condition, type_name: Callable[[int], str]
) -> None:
    """Raise Refused, with the SQL to run, unless snapshot and stream have everything that is in the table."""
    check_columns(database.name, {name: c.type_oid for name, c in shape.columns.items()}, type_name)
    keys = database.ask(
        "select a.attname from pg_index i "
        "join pg_attribute a on a.attrelid = i.indrelid "
        # Without the columns that the index only includes.
        "and a.attnum = any ((i.indkey::int2[])[:i.indnkeyatts - 1]) "
        "where i.indrelid = %s and i.indisprimary",
        (oid,),
    )
    if keys != [("sale_id",)]:
        raise Refused(
            f"the primary key of {database.name} must be sale_id: "
            f"alter table {database.name} add primary key (sale_id);"
        )
    if condition.hidden:
        raise Refused(
            f"row level security of {database.name} applies to capture's role, so its policies decide which rows are "
            f'read: a superuser runs alter role "{database.user}" bypassrls; (or alter table {database.name} disable '
            "row level security;)"
        )
    if condition.children:
        first = condition.children[0]
        raise Refused(
            f"other tables inherit from {database.name}: {', '.join(condition.children)}. Their rows show in it and "
            f"are not its own, so neither the snapshot nor the stream has them. For each: begin; alter table {first} "
            f"no inherit {database.name}; insert into {database.name} ({', '.join(COLUMNS)}) select "
            f"{', '.join(COLUMNS)} from {first}; commit; (an empty one is just dropped)"
        )
    if not condition.is_logged:
        raise Refused(
            f"{database.name} is unlogged: its changes are in no stream, and those until now are lost "
            f"for the log. alter table {database.name} set logged; and start anew with another slot and empty topics"
        )


def check_published(
    database: Database, shape: Shape, condition: Condition, published: Collection[str]
) -> None:
    """Raise Refused when a needed column is not in the stream, with what cures that on this server."""
    sends_generated = database.connection.server_version >= PUBLISHES_GENERATED
    # Before, the catalog lists what is generated, and the stream does not have it.
    missing = [
        name
        for name, column in shape.columns.items()
        if name not in published or (column.generated and not sends_generated)
    ]
    if not missing:
        return
    generated = [name for name in missing if shape.columns[name].generated]
    whole = f"alter publication {database.publication} set table {database.name};"
    if not generated:
        raise Refused(f"the publication leaves out {', '.join(sorted(missing))}: {whole}")
    if not sends_generated:
        drops = ", ".join(f"alter column {name} drop expression" for name in generated)
        cure = (
            "PostgreSQL publishes generated columns since 18; before, the shop has to write it like any other: "
            f"alter table {database.name} {drops}; (the values stay)"
        )
    elif any(dict(condition.columns)[name] == "v" for name in generated):
        cure = (
            "a virtual column is never published: an ordinary or a stored one has to take its place, which is another "
            "column: do it before the first start, or start anew with another slot and empty topics"
        )
    else:
        cure = f"alter publication {database.publication} set (publish_generated_columns = stored);"
    raise Refused(f"the publication leaves out {', '.join(generated)} of {database.name}, generated: {cure}")


def refusing_changes(database: Database, condition: Condition, published: Collection[str]) -> str | None:
    """Why PostgreSQL refuses UPDATE and DELETE of the table, the shop's own included; None when it does not.

    With REPLICA IDENTITY FULL a change needs every column of the old row to be published.
    """
    missing = {name: how for name, how in condition.columns if name not in published}
    if condition.identity != "f" or not missing:
        return None
    publication = f"alter publication {database.publication}"
    cures = []
    if "" in missing.values() or database.connection.server_version < PUBLISHES_GENERATED:
        cures.append(f"{publication} set table {database.name}; (without a list of columns)")
    elif "s" in missing.values():
        cures.append(
            f"{publication} set (publish_generated_columns = stored); (a list of columns has to name it)"
        )
    cures += [
        f"alter table {database.name} drop column {name}; (it is virtual, which is never published: a view has it)"
        for name, how in missing.items()
        if how == "v"
    ]
    asks = (
        " (capture asks then whether that lost anything)"
        if any(c.startswith(publication) for c in cures)
        else ""
    )
    return (
        f"PostgreSQL refuses every UPDATE and DELETE of {database.name}, the shop's own too, because its replica "
        f"identity is full and {', '.join(missing)} is not published: {' and '.join(cures)}{asks}"
    )
