"""What is captured: the table and its publication, as capture needs them, held to what they were when it began."""

from __future__ import annotations

import hashlib
from typing import Any

from sources.errors import Refused
from sources.postgres.database import Database
from sources.postgres.rows import COLUMNS
from sources.postgres.stream import check_columns

# pgoutput has had its binary format since 14, and since 15 it is silent about transactions without our tables.
OLDEST_SERVER = 150_000


class Published:
    """The sales table in its publication. A change of it that was undone is noticed too, by what each change leaves.

    Every change of a publication, and of its hold on a table, writes a new version of a row of the catalog, which
    bears the transaction's id; made again, it has another oid. `mark` stands for both and is part of the position.
    """

    def __init__(self, database: Database, accepted: str) -> None:
        self._database = database
        self._accepted = accepted
        # The table that is captured, whatever its name; 0 until it is known.
        self.oid = 0
        self.mark = ""

    def watch(self) -> None:
        """Raise Refused when the table is not published as `check` found it, or is not the one that it found.

        Asks the catalog only, because a look at the table itself would wait for whoever has locked it.
        """
        known = self.mark
        if self._look() == known:
            return
        try:
            self.check(self.oid)
        except Refused as error:
            raise Refused(
                f"{error} Found while capture ran: what was changed in between is not in the log; if that can be, "
                "start anew with another slot and empty topics"
            ) from error
        self.check_mark(known)

    def check_mark(self, known: str) -> None:
        """Raise Refused unless nothing was changed since `known`, or a person knows that nothing was lost by it."""
        if not known or self.mark in (known, self._accepted):
            return
        database = self._database
        raise Refused(
            f"the publication {database.publication}, or what it holds of {database.name}, was changed since capture "
            "last looked. It is whole now, but what was sold while it was not is not in the log: if that can be, "
            "start anew with another slot and empty topics. If nobody wrote to the table meanwhile, or it was whole "
            f"all the time, go on with ELECTRORED_SALES_PUBLICATION_ACCEPTED={self.mark}"
        )

    def _look(self) -> str:
        """Changes with every change of the publication, of what it holds of the table, and of the table's name."""
        database = self._database
        found = database.ask(
            "select oid, xmin::text, '', '' from pg_publication where pubname = %(publication)s "
            "union all select r.oid, r.xmin::text, '', '' from pg_publication_rel r "
            "join pg_publication p on p.oid = r.prpubid where p.pubname = %(publication)s and r.prrelid = %(oid)s "
            "union all select r.oid, r.xmin::text, '', '' from pg_publication_namespace r "
            "join pg_publication p on p.oid = r.pnpubid where p.pubname = %(publication)s "
            "union all select c.oid, '', n.nspname, c.relname from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace "
            "where c.oid = %(oid)s or (n.nspname = %(schema)s and c.relname = %(table)s) order by 1, 2, 3, 4",
            {
                "publication": database.publication,
                "oid": self.oid,
                "schema": database.schema,
                "table": database.table,
            },
        )
        return hashlib.sha256(repr(found).encode()).hexdigest()[:16]

    def check(self, oid: int = 0) -> None:
        """Raise Refused, with the SQL to run, unless capture can work here; `oid` is the table's if it is known."""
        if self._database.connection.server_version < OLDEST_SERVER:
            raise Refused(
                f"PostgreSQL 15 or newer is needed, this is {self._database.connection.server_version // 10_000}"
            )
        ((wal_level, encoding),) = self._database.ask(
            "select current_setting('wal_level'), current_setting('server_encoding')"
        )
        if wal_level != "logical":
            raise Refused(
                "wal_level must be logical: alter system set wal_level = logical; and restart PostgreSQL"
            )
        if encoding == "SQL_ASCII":
            raise Refused(
                "the database's encoding is SQL_ASCII: nobody can say which characters its texts hold"
            )
        self.check_name(oid)
        self.oid = self._check_table()
        # Before the publication is checked, so that a change after this look is seen by the next.
        self.mark = self._look()
        self._check_publication()

    def check_name(self, oid: int) -> None:
        """A known table must have kept its name: under another one its changes would be nobody's."""
        if not oid:
            return
        names = self._database.ask(
            "select n.nspname || '.' || c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.oid = %s or (n.nspname = %s and c.relname = %s)",
            (oid, self._database.schema, self._database.table),
        )
        now = {int(found): name for name, found in names}
        if now.get(oid, self._database.name) != self._database.name:
            raise Refused(
                f"the table {self._database.name} that was captured (oid {oid}) is now {now[oid]}: rename it back."
            )
        if now and oid not in now:
            raise Refused(
                f"{self._database.name} is another table than the one that was captured (oid {oid}), which is gone: "
                "start anew with another slot and empty topics."
            )

    def _check_table(self) -> int:
        """Gives the table's oid."""
        database = self._database
        found = database.ask(
            "select c.oid, c.relkind, has_table_privilege(c.oid, 'select') from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s",
            (database.schema, database.table),
        )
        if not found:
            raise Refused(f"there is no table {database.name} in the database {database.database}")
        ((oid, kind, may_read),) = found
        if kind != "r":
            raise Refused(f"{database.name} must be an ordinary table")
        if not may_read:
            raise Refused(f'the role may not read: grant select on {database.name} to "{database.user}";')
        columns = database.ask(
            "select attname, atttypid from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped",
            (oid,),
        )
        check_columns(database.name, {name: int(kind) for name, kind in columns})
        keys = database.ask(
            "select a.attname from pg_index i "
            # Without the columns that the index only includes.
            "join pg_attribute a on a.attrelid = i.indrelid "
            "and a.attnum = any ((i.indkey::int2[])[:i.indnkeyatts - 1]) "
            "where i.indrelid = %s and i.indisprimary",
            (oid,),
        )
        if keys != [("sale_id",)]:
            raise Refused(
                f"the primary key of {database.name} must be sale_id: "
                f"alter table {database.name} add primary key (sale_id);"
            )
        return int(oid)

    def _check_publication(self) -> None:
        database = self._database
        found = database.ask(
            "select pubinsert and pubupdate and pubdelete and pubtruncate from pg_publication where pubname = %s",
            (database.publication,),
        )
        if not found:
            raise Refused(
                f"there is no publication {database.publication}: "
                f"create publication {database.publication} for table {database.name};"
            )
        if found != [(True,)]:
            raise Refused(
                f"the publication leaves changes out: alter publication {database.publication} "
                "set (publish = 'insert, update, delete, truncate');"
            )
        tables = database.ask(
            "select rowfilter, attnames from pg_publication_tables "
            "where pubname = %s and schemaname = %s and tablename = %s",
            (database.publication, database.schema, database.table),
        )
        if not tables:
            raise Refused(
                f"{database.name} is not published: alter publication {database.publication} add table {database.name};"
            )
        ((row_filter, names),) = tables
        if row_filter is not None:
            raise Refused(
                f"the publication filters rows ({row_filter}), so totals would not be the table's: "
                f"alter publication {database.publication} set table {database.name};"
            )
        if names is not None and (missing := set(COLUMNS) - _names(names)):
            raise Refused(
                f"the publication leaves out {', '.join(sorted(missing))}: "
                f"alter publication {database.publication} set table {database.name};"
            )


def _names(value: Any) -> set[str]:
    return (
        set(value)
        if isinstance(value, list)
        else {name.strip('"') for name in str(value).strip("{}").split(",")}
    )
