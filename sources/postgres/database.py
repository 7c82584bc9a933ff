"""What capture asks the sales database: whether everything is as it needs it, the slot, and what time it is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg2
from psycopg2 import errors, extensions, extras, sql
from sqlalchemy import make_url

from contracts.settings import SalesDbSettings
from sources.errors import Interrupted, Refused
from sources.postgres.replication import Replication
from sources.postgres.rows import COLUMNS
from sources.postgres.stream import check_columns, lsn_number

# pgoutput has had its binary format since 14, and since 15 it is silent about transactions without our tables.
OLDEST_SERVER = 150_000
CONNECT_SECONDS = 10
# A page of WAL and its headers, as every usual build has them.
_PAGE_BYTES = 8_192
_HEADER_BYTES = (24, 40)


@dataclass(frozen=True)
class Identity:
    """Which server this is: positions mean nothing on another one, or on another history of it."""

    system: str
    timeline: int


@dataclass(frozen=True)
class Slot:
    confirmed_lsn: int
    wal_status: str | None
    active_pid: int | None


@dataclass(frozen=True)
class Now:
    """The server's flushed WAL and its clock, in microseconds, asked together; and what the slot holds back."""

    lsn: int
    at_micros: int
    retained_bytes: int


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the server says into Interrupted: the next session's checks find what a person has to mend."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise Refused(f"PostgreSQL: {_line(error)}") from error
    except psycopg2.Error as error:
        raise Interrupted(f"PostgreSQL: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class Database:
    """The sales database through one plain connection in autocommit mode."""

    def __init__(self, settings: SalesDbSettings) -> None:
        self.schema, _, self.table = settings.sales_table.rpartition(".")
        self.schema = self.schema or "public"
        self.publication = settings.sales_publication
        self.slot = settings.sales_slot
        self._url = make_url(settings.sales_db_url.get_secret_value())
        # The table that is captured, whatever its name; 0 until it is known.
        self.oid = 0
        self._seen: list[tuple[Any, ...]] = []
        self.connection = self._connect()
        self.connection.autocommit = True

    def _connect(self, **more: Any) -> extensions.connection:
        return cast(extensions.connection, psycopg2.connect(**self._parameters, **more))

    @property
    def _parameters(self) -> dict[str, Any]:
        url = self._url
        return {
            "host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database,
            "connect_timeout": CONNECT_SECONDS, "application_name": "electrored-capture", "client_encoding": "UTF8",
            # A peer that vanished without a word is noticed in seconds, not in the hours of the default.
            "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, **dict(url.query),
        }  # fmt: skip

    def replication(self) -> extras.LogicalReplicationConnection:
        """A connection that understands the replication commands."""
        return self._connect(connection_factory=extras.LogicalReplicationConnection)  # type: ignore[return-value]

    def stream(self, start_lsn: int) -> Replication:
        """The slot's stream from there on, on a connection of its own."""
        publication = self.publication.replace('"', '""')
        options = {"proto_version": "1", "publication_names": f'"{publication}"', "binary": "true"}
        return Replication(self._parameters, self.slot, start_lsn, options)

    def close(self) -> None:
        self.connection.close()

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    def ask(self, query: str | sql.Composable, arguments: Any = ()) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(query, arguments)
            return cursor.fetchall() if cursor.description else []

    def watch(self) -> None:
        """Raise Refused when the table is not published whole any more, or is not the one that `check` found.

        Asks the catalog only, because a look at the table itself would wait for whoever has locked it.
        """
        if self._look() == self._seen:
            return
        try:
            self.check(self.oid)
        except Refused as error:
            raise Refused(
                f"{error} Found while capture ran: what was changed in between is not in the log; if that can be, "
                "start anew with another slot and empty topics"
            ) from error

    def _look(self) -> list[tuple[Any, ...]]:
        """Changes with every change of the publication, of what it holds of the table, and of the table's name."""
        return self.ask(
            "select oid, xmin::text, '', '' from pg_publication where pubname = %(publication)s "
            "union all select r.oid, r.xmin::text, '', '' from pg_publication_rel r "
            "join pg_publication p on p.oid = r.prpubid where p.pubname = %(publication)s and r.prrelid = %(oid)s "
            "union all select r.oid, r.xmin::text, '', '' from pg_publication_namespace r "
            "join pg_publication p on p.oid = r.pnpubid where p.pubname = %(publication)s "
            "union all select c.oid, '', n.nspname, c.relname from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace "
            "where c.oid = %(oid)s or (n.nspname = %(schema)s and c.relname = %(table)s) order by 1, 2, 3, 4",
            {"publication": self.publication, "oid": self.oid, "schema": self.schema, "table": self.table},
        )

    def check(self, oid: int = 0) -> None:
        """Raise Refused, with the SQL to run, unless capture can work here; `oid` is the table's if it is known."""
        if self.connection.server_version < OLDEST_SERVER:
            raise Refused(
                f"PostgreSQL 15 or newer is needed, this is {self.connection.server_version // 10_000}"
            )
        ((wal_level, encoding, may_replicate),) = self.ask(
            "select current_setting('wal_level'), current_setting('server_encoding'), rolreplication or rolsuper "
            "from pg_roles where rolname = current_user"
        )
        if wal_level != "logical":
            raise Refused(
                "wal_level must be logical: alter system set wal_level = logical; and restart PostgreSQL"
            )
        if encoding == "SQL_ASCII":
            raise Refused(
                "the database's encoding is SQL_ASCII: nobody can say which characters its texts hold"
            )
        if not may_replicate:
            raise Refused(f'the role may not replicate: alter role "{self._url.username}" replication;')
        self.check_name(oid)
        self.oid = self._check_table()
        # Before the publication is checked, so that a change after this look is seen by the next.
        self._seen = self._look()
        self._check_publication()

    def check_name(self, oid: int) -> None:
        """A known table must have kept its name: under another one its changes would be nobody's."""
        if not oid:
            return
        names = self.ask(
            "select n.nspname || '.' || c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.oid = %s or (n.nspname = %s and c.relname = %s)",
            (oid, self.schema, self.table),
        )
        now = {int(found): name for name, found in names}
        if now.get(oid, self.name) != self.name:
            raise Refused(
                f"the table {self.name} that was captured (oid {oid}) is now {now[oid]}: rename it back."
            )
        if now and oid not in now:
            raise Refused(
                f"{self.name} is another table than the one that was captured (oid {oid}), which is gone: "
                "start anew with another slot and empty topics."
            )

    def _check_table(self) -> int:
        """Gives the table's oid."""
        found = self.ask(
            "select c.oid, c.relkind, has_table_privilege(c.oid, 'select') from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s",
            (self.schema, self.table),
        )
        if not found:
            raise Refused(f"there is no table {self.name} in the database {self._url.database}")
        ((oid, kind, may_read),) = found
        if kind != "r":
            raise Refused(f"{self.name} must be an ordinary table")
        if not may_read:
            raise Refused(f'the role may not read: grant select on {self.name} to "{self._url.username}";')
        columns = self.ask(
            "select attname, atttypid from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped",
            (oid,),
        )
        check_columns(self.name, {name: int(kind) for name, kind in columns})
        keys = self.ask(
            "select a.attname from pg_index i "
            "join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey) "
            "where i.indrelid = %s and i.indisprimary",
            (oid,),
        )
        if keys != [("sale_id",)]:
            raise Refused(
                f"the primary key of {self.name} must be sale_id: alter table {self.name} add primary key (sale_id);"
            )
        return int(oid)

    def _check_publication(self) -> None:
        found = self.ask(
            "select pubinsert and pubupdate and pubdelete and pubtruncate from pg_publication where pubname = %s",
            (self.publication,),
        )
        if not found:
            raise Refused(
                f"there is no publication {self.publication}: "
                f"create publication {self.publication} for table {self.name};"
            )
        if found != [(True,)]:
            raise Refused(
                f"the publication leaves changes out: alter publication {self.publication} "
                "set (publish = 'insert, update, delete, truncate');"
            )
        tables = self.ask(
            "select rowfilter, attnames from pg_publication_tables "
            "where pubname = %s and schemaname = %s and tablename = %s",
            (self.publication, self.schema, self.table),
        )
        if not tables:
            raise Refused(
                f"{self.name} is not published: alter publication {self.publication} add table {self.name};"
            )
        ((row_filter, names),) = tables
        if row_filter is not None:
            raise Refused(
                f"the publication filters rows ({row_filter}), so totals would not be the table's: "
                f"alter publication {self.publication} set table {self.name};"
            )
        if names is not None and (missing := set(COLUMNS) - _names(names)):
            raise Refused(
                f"the publication leaves out {', '.join(sorted(missing))}: "
                f"alter publication {self.publication} set table {self.name};"
            )

    def identity(self, replication: extensions.connection) -> Identity:
        with replication.cursor() as cursor:
            cursor.execute("IDENTIFY_SYSTEM")
            row = cursor.fetchone()
        if row is None:
            raise Interrupted("PostgreSQL did not say who it is")
        return Identity(str(row[0]), int(row[1]))

    def find_slot(self) -> Slot | None:
        found = self.ask(
            "select confirmed_flush_lsn, wal_status, active_pid, database, plugin from pg_replication_slots "
            "where slot_name = %s",
            (self.slot,),
        )
        if not found:
            return None
        ((lsn, status, pid, database, plugin),) = found
        if database != self._url.database or plugin != "pgoutput":
            raise Refused(
                f"the slot {self.slot} belongs to {plugin} in the database {database}: "
                "set ELECTRORED_SALES_SLOT to another name"
            )
        return Slot(lsn_number(lsn) if lsn else 0, status, pid)

    def create_slot(self, replication: extensions.connection) -> tuple[int, str]:
        """Make the slot; gives where its stream begins, and the `pg_snapshot` of what is before that.

        Waits for the transactions that are running now, as every logical slot does.
        """
        with replication.cursor() as cursor:
            cursor.execute(
                sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')").format(
                    sql.Identifier(self.slot)
                )
            )
            row = cursor.fetchone()
        if row is None:
            raise Interrupted("PostgreSQL did not say where the slot begins")
        self.ask("begin isolation level repeatable read read only")
        try:
            self.ask(sql.SQL("set transaction snapshot {}").format(sql.Literal(row[2])))
            ((snapshot,),) = self.ask("select pg_current_snapshot()::text")
        finally:
            self.ask("rollback")
        return lsn_number(row[1]), str(snapshot)

    def free_slot(self, pid: int) -> None:
        """End the connection of a predecessor that is fenced already and only holds the slot."""
        self.ask("select pg_terminate_backend(%s, 5000)", (pid,))

    def drop_slot(self) -> None:
        self.ask("select pg_drop_replication_slot(%s)", (self.slot,))

    def insert_lsn(self) -> int:
        """A position that the stream passes only after every commit that is visible now.

        Inserted, not flushed: an asynchronous commit is visible before it is flushed. Just behind a page's header
        no record has ended yet, and a stream at rest would stop in front of the header.
        """
        ((text,),) = self.ask("select pg_current_wal_insert_lsn()")
        lsn = lsn_number(text)
        within = lsn % _PAGE_BYTES
        return lsn - within if within in _HEADER_BYTES else lsn

    def now(self) -> Now:
        """Raises Refused when the slot is gone or lost."""
        found = self.ask(
            "select pg_current_wal_flush_lsn(), (extract(epoch from clock_timestamp()) * 1000000)::bigint, wal_status, "
            "pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn) from pg_replication_slots where slot_name = %s",
            (self.slot,),
        )
        if not found:
            raise Refused(gone(self.slot, "is gone"))
        ((lsn, at, status, retained),) = found
        if status == "lost":
            raise Refused(gone(self.slot, "has lost its WAL (max_slot_wal_keep_size)"))
        return Now(lsn_number(lsn), at, int(retained or 0))


def gone(slot: str, how: str) -> str:
    return (
        f"the replication slot {slot} {how}: changes since the ledger's position are not known any more, and "
        "nothing is guessed. Start anew with another slot and empty topics"
    )


def _names(value: Any) -> set[str]:
    return (
        set(value)
        if isinstance(value, list)
        else {name.strip('"') for name in str(value).strip("{}").split(",")}
    )
