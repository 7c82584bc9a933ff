"""Reports what a call to the sales database waits for, from a second thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import psycopg
import psycopg2
from psycopg2 import extensions

from observability import logs
from observability.waits import WAITS, On
from sources.postgres.database import Database
from sources.postgres.failures import one_line

_log = logs.get(__name__)

# Reporters of a wait: each ends its own.
SESSION, CHUNK, WATCHER = "session", "chunk", "watcher"
# A longer call is looked up: capture's queries take less by themselves, but a chunk's key may.
PATIENCE_SECONDS = 2.0
# When capture has to stop, a server that does not end a call is left alone after that.
CANCEL_SECONDS = 2.0
# How soon a stop is noticed.
_LOOK_SECONDS = 0.2

# Every role may see locks; only some may see when another role's transaction began. A prepared transaction holds its
# locks without a process.
_HOLDERS = """
with waiting as (
  select pg_blocking_pids(pid) pids, transactionid from pg_locks where pid = any(%(pids)s) and not granted
  union all
  select array[coalesce(pid, 0)], transactionid from pg_locks
  where locktype = 'transactionid' and granted and transactionid::text = any(%(xids)s)
)
select format('pid %%s of user %%s (application %%L) in the database %%s, open since %%s', a.pid,
       coalesce(a.usename, '?'), a.application_name, coalesce(a.datname, '?'),
       coalesce(a.xact_start::timestamptz(0)::text, 'when only a member of pg_read_all_stats sees')),
       format('have it ended, or: select pg_terminate_backend(%%s);', a.pid)
from pg_stat_activity a where a.pid in (select unnest(pids) from waiting)
union all
select format('the prepared transaction %%L of user %%s in the database %%s, prepared %%s', p.gid, p.owner, p.database,
       p.prepared::timestamptz(0)), format('there: commit prepared %%L; or rollback prepared %%L;', p.gid, p.gid)
from pg_prepared_xacts p where exists (
  select from waiting w where 0 = any(w.pids) and (w.transactionid is null or w.transactionid = p.transaction)
)
"""


def holders(connection: extensions.connection, pids: Sequence[int] = (), xids: Sequence[int] = ()) -> str:
    """The holders of what these processes wait for, and these transactions, with what to do; empty: none.

    `connection` is a second one, since capture's may be waiting.
    """
    # Transactions are named by 64 bits, locks by 32.
    short = [str(xid % (1 << 32)) for xid in xids]
    with connection.cursor() as cursor:
        cursor.execute(_HOLDERS, {"pids": list(pids), "xids": short})
        rows = cursor.fetchall()
    return "; ".join(f"{holder}: {cure}" for holder, cure in rows)


def report_unseen(database: Database, xids: Sequence[int]) -> None:
    """Report a wait for these transactions, which the next chunk has to see, and their holders."""
    detail = f"the next range of the table waits for transactions {xids[:10]} to be visible"
    try:
        with closing(database.connect()) as connection:
            holding = holders(connection, xids=xids)
        detail += f": {holding}" if holding else "; do they wait for a synchronous standby?"
    except psycopg2.Error as error:
        detail += f"; their holders cannot be looked up: {one_line(str(error))}"
    WAITS.begin("transaction", detail, CHUNK)
    _log.warning("waiting", reason=detail)


class Watcher:
    """Reports what keeps a session's call to the database waiting, and ends the call when capture has to stop."""

    def __init__(self, database: Database, stop: threading.Event) -> None:
        self._database = database
        self._stop = stop
        self._ended = threading.Event()
        self._reported: On | None = None
        # Open only while a call waits.
        self._connection: extensions.connection | None = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        look_at, stopping_at = PATIENCE_SECONDS, 0.0
        while not self._ended.wait(_LOOK_SECONDS):
            busy = self._database.busy_seconds
            if not busy:
                self._end()
                self._hang_up()
                look_at = PATIENCE_SECONDS
            elif not self._stop.is_set():
                if busy > look_at:
                    look_at = busy + 1
                    self._look()
            elif not stopping_at:
                stopping_at = time.monotonic()
                # In a thread: the server may not answer a cancel either.
                threading.Thread(target=self._end_call, args=(self._database.cancel,), daemon=True).start()
            elif time.monotonic() > stopping_at + CANCEL_SECONDS:
                self._end_call(self._database.hang_up)
        self._end()
        self._hang_up()

    def _look(self) -> None:
        try:
            if self._connection is None:
                self._connection = self._database.connect()
            holding = holders(self._connection, self._database.pids)
        except psycopg2.Error as error:
            self._hang_up()
            self._report(
                "postgres",
                f"PostgreSQL has not answered for {self._database.busy_seconds:.0f} s, and what blocks it cannot "
                f"be looked up: {one_line(str(error))}",
            )
            return
        if holding:
            self._report("transaction", f"PostgreSQL waits for {holding}")
        else:
            self._end()

    def _report(self, on: On, detail: str) -> None:
        if self._reported != on:
            self._end()
            _log.warning("waiting", reason=detail)
        self._reported = on
        WAITS.begin(on, detail, WATCHER)

    def _end(self) -> None:
        if self._reported is not None:
            WAITS.end(self._reported, WATCHER)
            self._reported = None

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _end_call(self, how: Callable[[], None]) -> None:
        try:
            how()
        except (psycopg2.Error, psycopg.Error, OSError) as error:
            _log.warning("a call could not be ended", reason=one_line(str(error)))
