"""What capture asks the sales database: which server it is, the slot, and what time it is there."""

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
from sources.postgres.stream import lsn_number

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
    """The server's flushed WAL and its clock, in microseconds, asked together."""

    lsn: int
    at_micros: int


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
    def user(self) -> str | None:
        return self._url.username

    @property
    def database(self) -> str | None:
        return self._url.database

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
            "select pg_current_wal_flush_lsn(), (extract(epoch from clock_timestamp()) * 1000000)::bigint, wal_status "
            "from pg_replication_slots where slot_name = %s",
            (self.slot,),
        )
        if not found:
            raise Refused(gone(self.slot, "is gone"))
        ((lsn, at, status),) = found
        if status == "lost":
            raise Refused(gone(self.slot, "has lost its WAL (max_slot_wal_keep_size)"))
        return Now(lsn_number(lsn), at)


def gone(slot: str, how: str) -> str:
    return (
        f"the replication slot {slot} {how}: changes since the ledger's position are not known any more, and "
        "nothing is guessed. Start anew with another slot and empty topics"
    )
