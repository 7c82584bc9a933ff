"""Queries of capture to the sales database: the server's identity, the slot, WAL and clock."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg
import psycopg2
from psycopg2 import errors, extensions, sql
from sqlalchemy import make_url

from contracts.settings import SalesDbSettings
from kafka_client.errors import Refused, Retriable
from sources.postgres.failures import gone, invalidated, one_line
from sources.postgres.lsn import lsn_number
from sources.postgres.parameters import parameters
from sources.postgres.replication import TRANSACTION_TIMEOUT_SINCE, Replication

# How long one attempt waits for a predecessor that holds the slot.
FREE_MILLISECONDS = 1_000
# Roles by whose membership managed servers grant replication: Amazon RDS and Aurora, Yandex.
_REPLICATION_ROLES = ["rds_replication", "mdb_replication"]
# A page of WAL and its headers, as every usual build has them.
_PAGE_BYTES = 8_192
_HEADER_BYTES = (24, 40)


@dataclass(frozen=True)
class Identity:
    """Identity of a server: a position is valid on this server and timeline only."""

    system: str
    timeline: int


@dataclass(frozen=True)
class Slot:
    confirmed_lsn: int
    active_pid: int | None
    # Why it was invalidated; empty while it is valid.
    lost: str = ""


@dataclass(frozen=True)
class Now:
    """The server's flushed WAL and its clock, in microseconds, read together."""

    lsn: int
    at_micros: int


# As JSON, because a column that is not there would be an error.
_IS_LOST = (
    "coalesce(to_jsonb(s) ->> 'invalidation_reason', case when s.wal_status = 'lost' then 'wal_removed' end)"
)


class Database:
    """The sales database through one plain connection in autocommit mode."""

    def __init__(self, settings: SalesDbSettings) -> None:
        self.schema, _, self.table = settings.sales_table.rpartition(".")
        self.schema = self.schema or "public"
        self.publication = settings.sales_publication
        self.slot = settings.sales_slot
        self._url = make_url(settings.sales_db_url.get_secret_value())
        self._parameters = parameters(self._url)
        self._busy_since: float | None = None
        self._replication: Replication | None = None
        self.connection = self.connect()

    def connect(self) -> extensions.connection:
        """A plain connection in autocommit mode, without the limits of role and database."""
        connection = cast(extensions.connection, psycopg2.connect(**self._parameters))
        connection.autocommit = True
        if connection.server_version >= TRANSACTION_TIMEOUT_SINCE:
            with connection.cursor() as cursor:
                cursor.execute("set transaction_timeout = 0")
        return connection

    def replication(self) -> Replication:
        """The connection in replication mode, opened at its first use.

        Raises Refused with the right that is missing. The server decides, since managed ones grant it by membership.
        """
        if self._replication is None:
            try:
                with self.busy():
                    self._replication = Replication(self._parameters)
            except psycopg.OperationalError as error:
                # A plain connection was accepted before, so it is the right, or max_wal_senders.
                raise self._no_replication(one_line(str(error))) from error
        return self._replication

    def _no_replication(self, line: str) -> Refused | Retriable:
        ((senders, most, may),) = self.ask(
            "select (select count(*) from pg_stat_replication), current_setting('max_wal_senders')::int, "
            # The rest is how managed servers do it.
            "exists (select from pg_roles where rolname = current_user and (rolreplication or rolsuper)) or exists "
            "(select from pg_roles where rolname = any (%s) and pg_has_role(oid, 'member'))",
            (_REPLICATION_ROLES,),
        )
        if senders >= most:
            return Retriable(
                f"PostgreSQL: all {most} of max_wal_senders are in use ({line}): end one, see pg_stat_replication, "
                "or alter system set max_wal_senders = …; and restart PostgreSQL",
                on="postgres",
            )
        if may:
            return Retriable(f"PostgreSQL: {line}", on="postgres")
        return Refused(
            f'the role may not replicate ({line}): alter role "{self.user}" replication; on Amazon RDS and Aurora: '
            f'grant rds_replication to "{self.user}";'
        )

    def stream(self) -> Slot:
        """Begin the stream where the slot is confirmed; returns the slot, which no other client can move then."""
        replication = self.replication()
        publication = self.publication.replace('"', '""')
        with self.busy():
            replication.start(
                self.slot, {"proto_version": "1", "publication_names": f'"{publication}"', "binary": "true"}
            )
        slot = self.find_slot()
        if slot is None or slot.active_pid != replication.pid:
            raise Retriable(
                f"PostgreSQL: the slot {self.slot} is not held by the stream that was begun; are there two servers "
                "behind one address?",
                on="postgres",
            )
        return slot

    @contextmanager
    def busy(self) -> Iterator[None]:
        """A call to the server that may wait there for others."""
        self._busy_since = time.monotonic()
        try:
            yield
        finally:
            self._busy_since = None

    @property
    def busy_seconds(self) -> float:
        """How long a call has been waiting for its answer; thread-safe."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def pids(self) -> list[int]:
        """The server's processes that work for us."""
        replication = self._replication
        return [self.connection.info.backend_pid, *([replication.pid] if replication else [])]

    def cancel(self) -> None:
        """Cancel the call that is waiting; thread-safe."""
        self.connection.cancel()
        if self._replication is not None:
            self._replication.cancel()

    def hang_up(self) -> None:
        """Shut the sockets down without notice to the server; thread-safe."""
        for fd in [self.connection.fileno(), *([self._replication.fileno()] if self._replication else [])]:
            with closing(socket.socket(fileno=os.dup(fd))) as ours:
                ours.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.connection.close()
        if self._replication is not None:
            self._replication.close()

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
        with self.busy(), self.connection.cursor() as cursor:
            cursor.execute(query, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def copy(self, query: sql.Composable) -> bytes:
        """The output of a COPY TO STDOUT."""
        out = io.BytesIO()
        with self.busy(), self.connection.cursor() as cursor:
            cursor.copy_expert(query, out)
        return out.getvalue()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One snapshot for all queries within."""
        self.ask("begin isolation level repeatable read read only")
        try:
            yield
        finally:
            # On a lost connection it would mask the first error.
            if not self.connection.closed:
                self.ask("rollback")

    def identity(self) -> Identity:
        replication = self.replication()
        with self.busy():
            return Identity(*replication.identity())

    def find_slot(self) -> Slot | None:
        rows = self.ask(
            f"select confirmed_flush_lsn, active_pid, {_IS_LOST}, database, plugin from pg_replication_slots s "
            "where slot_name = %s",
            (self.slot,),
        )
        if not rows:
            return None
        ((lsn, pid, lost, database, plugin),) = rows
        if database != self._url.database or plugin != "pgoutput":
            raise Refused(
                f"the slot {self.slot} belongs to {plugin} in the database {database}: "
                "set ELECTRORED_SALES_SLOT to another name"
            )
        return Slot(lsn_number(lsn) if lsn else 0, pid, invalidated(lost))

    def create_slot(self) -> tuple[int, str]:
        """Create the slot; returns where its stream begins, and the `pg_snapshot` of what is before that.

        Waits for the transactions that are running now, as every logical slot does.
        """
        replication = self.replication()
        with self.busy():
            lsn, exported = replication.create_slot(self.slot)
        with self.reading():
            self.ask(sql.SQL("set transaction snapshot {}").format(sql.Literal(exported)))
            ((snapshot,),) = self.ask("select pg_current_snapshot()::text")
        return lsn, str(snapshot)

    def free_slot(self, pid: int) -> None:
        """End the connection of a predecessor that is fenced already and only holds the slot."""
        try:
            ((is_ended,),) = self.ask("select pg_terminate_backend(%s, %s)", (pid, FREE_MILLISECONDS))
        except errors.InsufficientPrivilege as error:
            raise Retriable(
                f"PostgreSQL: the slot {self.slot} is held by pid {pid}, which is another role's "
                f"({one_line(str(error))}): as that role or a superuser, select pg_terminate_backend({pid});",
                on="postgres",
            ) from error
        if not is_ended:
            raise Retriable(
                f"PostgreSQL: the slot {self.slot} is held by pid {pid}, which was terminated and has not ended",
                on="postgres",
            )

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
        rows = self.ask(
            "select pg_current_wal_flush_lsn(), (extract(epoch from clock_timestamp()) * 1000000)::bigint, "
            f"{_IS_LOST} from pg_replication_slots s where slot_name = %s",
            (self.slot,),
        )
        if not rows:
            raise Refused(gone(self.slot, "is gone"))
        ((lsn, at, lost),) = rows
        if lost is not None:
            raise Refused(gone(self.slot, invalidated(lost)))
        return Now(lsn_number(lsn), at)
