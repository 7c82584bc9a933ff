"""Writes simulated sales to PostgreSQL on schedule, through outages of the database."""

from __future__ import annotations

import csv
import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extras import execute_values
from sqlalchemy import make_url
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential_jitter,
)

from simulators.sales import Change, Sale

COLUMNS = tuple(field.name for field in fields(Sale))
TABLE = "public.sales"
_row = attrgetter(*COLUMNS)
# A database that restarts is back in seconds; a longer outage needs a person.
PATIENCE_SECONDS = 120.0
# Above some 100 changes a second commits are shared: 5 ms is little beside what follows, and spares the disk.
TICK_SECONDS = 0.005
# What one transaction takes at most, when a schedule is behind.
BATCH = 5_000

_log = logging.getLogger(__name__)


class SalesWriter:
    """One connection to the sales database, reopened when it breaks.

    A write whose outcome is unknown is repeated: sale ids are known beforehand, so no row is there twice.
    """

    def __init__(self, url: str, stop: threading.Event, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: Connection | None = None
        self._retrying = Retrying(
            retry=retry_if_exception_type((psycopg2.OperationalError, psycopg2.InterfaceError)),
            wait=wait_exponential_jitter(multiplier=0.2, max=3, jitter=0.2),
            stop=stop_after_delay(patience_seconds) | stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=before_sleep_log(_log, logging.WARNING),
            reraise=True,
        )

    def load(self, sales: Iterable[Sale]) -> int:
        """Copy a history into the table if it is empty, whole or not at all; gives the number of rows."""
        return self._retrying(self._load, list(sales))

    def write(self, changes: list[Change]) -> None:
        """Write the changes in one transaction."""
        self._retrying(self._write, changes)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg2.connect(
                self._dsn, application_name="electrored-simulator", connect_timeout=5
            )
        return self._connection

    def _load(self, sales: list[Sale]) -> int:
        with self._connected() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT EXISTS (SELECT FROM {TABLE})")
            row = cursor.fetchone()
            if row is None or row[0]:
                return 0
            text = io.StringIO()
            csv.writer(text).writerows(map(_row, sales))
            text.seek(0)
            cursor.copy_expert(f"COPY {TABLE} ({', '.join(COLUMNS)}) FROM STDIN WITH (FORMAT csv)", text)
            return len(sales)

    def _write(self, changes: list[Change]) -> None:
        # By kind instead of in order: corrections follow their insert, of two updates the last counts.
        inserts = [_row(change.sale) for change in changes if change.kind == "insert"]
        updates = {change.sale.sale_id: _row(change.sale) for change in changes if change.kind == "update"}
        deletes = [change.sale.sale_id for change in changes if change.kind == "delete"]
        names = ", ".join(COLUMNS)
        with self._connected() as connection, connection.cursor() as cursor:
            if inserts:
                sql = f"INSERT INTO {TABLE} ({names}) VALUES %s ON CONFLICT (sale_id) DO NOTHING"
                execute_values(cursor, sql, inserts, page_size=1_000)
            if updates:
                changed = ", ".join(f"{name} = new.{name}" for name in COLUMNS[1:])
                rows = f"(VALUES %s) new ({names})"
                sql = f"UPDATE {TABLE} old SET {changed} FROM {rows} WHERE old.sale_id = new.sale_id"
                execute_values(cursor, sql, list(updates.values()), page_size=1_000)
            if deletes:
                cursor.execute(f"DELETE FROM {TABLE} WHERE sale_id = ANY (%s)", (deletes,))


def utc_now() -> datetime:
    return datetime.now(UTC)


def run(
    till: SalesWriter, changes: Iterator[Change], stop: threading.Event, now: Callable[[], datetime] = utc_now
) -> int:
    """Write every change when it is due, until `stop` or the end; gives how many were written.

    What was due while the database was away is written afterwards: no sale is left out, as in a shop.
    """
    written = 0
    due: list[Change] = []
    upcoming = next(changes, None)
    while not stop.is_set():
        time = now()
        while upcoming is not None and upcoming.at <= time and len(due) < BATCH:
            due.append(upcoming)
            upcoming = next(changes, None)
        if due:
            till.write(due)
            written += len(due)
            due = []
        if upcoming is None:
            break
        wait = (upcoming.at - now()).total_seconds()
        if wait > -TICK_SECONDS:
            stop.wait(max(wait, TICK_SECONDS))
    return written
