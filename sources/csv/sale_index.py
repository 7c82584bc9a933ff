"""The sale of the files that counts for each sale_id, in the results database.

A cache of `sales-events`. It stores which events it reflects in the transaction of its rows, is caught up from the log
before a file is read, and is dropped and rebuilt when it does not match the log.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from sqlalchemy import make_url

from contracts.settings import KEEPALIVES, ResultsDbSettings
from kafka_client.errors import Fenced, Refused, Retriable
from observability import logs
from sources.csv.own_events import Log
from sources.csv.validate import COLUMNS, SCHEMA

_log = logs.get(__name__)

_CONNECT: dict[str, Any] = {
    "connect_timeout": 10,
    **KEEPALIVES,
    "tcp_user_timeout": 10_000,
}
# The longest statement, bringing in a batch of the log, takes a few; a longer one waits for a lock.
STATEMENT_SECONDS = 60
# The columns of the table.
_STORED = (*COLUMNS, "seq")
STORED_SCHEMA: dict[str, Any] = {name: SCHEMA[name] for name in COLUMNS} | {"seq": pl.Int64}
NAMES = ", ".join(_STORED)


@contextmanager
def database_answers() -> Iterator[None]:
    """Turn a database that is away into Retriable."""
    try:
        yield
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise Retriable(f"the results database: {str(error).strip()}") from error


class SaleIndex:
    """The cache, over one connection. Rows in and out are frames of `STORED_SCHEMA`."""

    def __init__(self, settings: ResultsDbSettings) -> None:
        url = make_url(settings.results_db_url.get_secret_value()).set(drivername="postgresql")
        with database_answers():
            self._connection: Connection = psycopg2.connect(
                url.render_as_string(hide_password=False),
                application_name="electrored-csv",
                **_CONNECT,
            )
            with self.transaction() as cursor:
                cursor.execute("SET statement_timeout = %s", (STATEMENT_SECONDS * 1_000,))
                # What a crash of the server loses is in the log: rows and positions are lost together.
                cursor.execute("SET synchronous_commit = off")
                cursor.execute("SET client_encoding = 'UTF8'")
                cursor.execute('CREATE TEMP TABLE csv_wanted (sale_id text COLLATE "C")')
                cursor.execute("CREATE TEMP TABLE csv_changed (LIKE csv_sales)")
        self._topic_id = ""
        self.next_seq = 1
        self._seen = 1

    def close(self) -> None:
        self._connection.close()

    def find(self, sale_ids: pl.Series) -> pl.DataFrame:
        """The sales that count under these ids."""
        with self.transaction() as cursor:
            copy_in(cursor, "csv_wanted", pl.DataFrame({"sale_id": sale_ids}))
            self._select(cursor)
            return pl.DataFrame(cursor.fetchall(), schema=STORED_SCHEMA, orient="row")

    def made_by(self, first_seq: int, next_seq: int, most: int) -> pl.DataFrame:
        """At most `most` of the sales that count with `first_seq` ≤ seq < `next_seq`, by seq."""
        with self.transaction() as cursor:
            cursor.execute(
                f"SELECT {NAMES} FROM csv_sales WHERE seq >= %s AND seq < %s ORDER BY seq LIMIT %s",
                (first_seq, next_seq, most),
            )
            return pl.DataFrame(cursor.fetchall(), schema=STORED_SCHEMA, orient="row")

    def apply(self, changed: pl.DataFrame, next_seq: int) -> None:
        """Apply a committed Kafka transaction: the sale that now counts for each id; with seq 0, none does.

        Raises Fenced when another process has moved the cache on: it applied these events from the log.
        """
        with self.transaction() as cursor:
            cursor.execute(
                "UPDATE csv_cache SET next_seq = %s, seen = %s WHERE topic_id = %s AND next_seq = %s",
                (next_seq, next_seq, self._topic_id, self.next_seq),
            )
            if cursor.rowcount != 1:
                raise Fenced("another process takes the files; this one ends")
            self._store(cursor, changed)
        self.next_seq = next_seq

    def _store(self, cursor: Cursor, changed: pl.DataFrame) -> None:
        if changed.is_empty():
            return
        copy_in(cursor, "csv_changed", changed)
        cursor.execute(upsert("csv_sales"))
        if (changed["seq"] == 0).any():
            cursor.execute(
                "DELETE FROM csv_sales s USING csv_changed c WHERE c.seq = 0 AND c.sale_id = s.sale_id"
            )

    def note_ends(self, ends: dict[int, int]) -> None:
        """Store that everything of the source below these offsets is reflected: catching up may begin there."""
        with self.transaction() as cursor:
            cursor.execute(
                "UPDATE csv_cache SET offsets = %s WHERE topic_id = %s AND next_seq = %s",
                (_json(ends), self._topic_id, self.next_seq),
            )

    def catch_up(self, log: Log, next_seq: int) -> None:
        """Apply every event below the position's `next_seq`. Raises Refused if the log does not have them all."""
        self._topic_id = log.topic_id
        for is_new in (False, True):
            offsets = self._begin(is_new)
            if not is_new and self.next_seq == self._seen == next_seq:
                # Position and events are written together: the log has nothing beyond.
                return
            if self.next_seq <= next_seq:
                self._follow(log, offsets)
                if self._seen == next_seq:
                    self._caught_up(next_seq)
                    return
            if not is_new:
                _log.warning("the cache of taken rows does not match the log: it is rebuilt from the log")
        raise Refused(
            f"the events of the CSV files in {log.topic.name} end below seq {next_seq}, which the position "
            "store records as written: the topic has lost events, or the position is another topic's. Restore the topic"
        )

    def _begin(self, is_new: bool) -> dict[int, int]:
        with self.transaction() as cursor:
            cursor.execute(
                "SELECT next_seq, seen, offsets FROM csv_cache WHERE topic_id = %s", (self._topic_id,)
            )
            row = cursor.fetchone()
            if row is None or is_new:
                cursor.execute("TRUNCATE csv_sales, csv_cache")
                cursor.execute("INSERT INTO csv_cache VALUES (%s, 1, 1, '{}')", (self._topic_id,))
                row = (1, 1, {})
        self.next_seq, self._seen, offsets = row
        return {int(partition): offset for partition, offset in offsets.items()}

    def _follow(self, log: Log, offsets: dict[int, int]) -> None:
        """Apply the log from the offsets on, without what is reflected already."""
        for events, ends in log.events(offsets):
            fresh = [event for event in events if event["seq"] >= self.next_seq]
            self._seen = max(self._seen, *(event["seq"] + 1 for event in fresh), 1)
            with self.transaction() as cursor:
                self._store(cursor, _newest(fresh))
                cursor.execute(
                    "UPDATE csv_cache SET seen = %s, offsets = %s WHERE topic_id = %s",
                    (self._seen, _json(ends), self._topic_id),
                )

    def _caught_up(self, next_seq: int) -> None:
        with self.transaction() as cursor:
            cursor.execute(
                "UPDATE csv_cache SET next_seq = %s WHERE topic_id = %s", (next_seq, self._topic_id)
            )
        self.next_seq = next_seq

    def _select(self, cursor: Cursor) -> None:
        cursor.execute(f"SELECT {NAMES} FROM csv_sales JOIN csv_wanted USING (sale_id)")

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """All of it or nothing. Raises Retriable when the database is away."""
        with database_answers(), self._connection, self._connection.cursor() as cursor:
            yield cursor


def _newest(events: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The sale that counts for each id after these events; those of one sale are in order."""
    newest = {}
    for event in events:
        newest[event["sale_id"]] = event if event["operation"] == "SALE" else event | {"seq": 0}
    rows = [tuple(event[name] for name in _STORED) for event in newest.values()]
    return pl.DataFrame(rows, schema=STORED_SCHEMA, orient="row")


def copy_in(cursor: Cursor, table: str, frame: pl.DataFrame) -> None:
    """Replace the content of a temporary table by the frame."""
    text = io.BytesIO()
    frame.write_csv(text, include_header=False, quote_style="non_numeric")
    text.seek(0)
    cursor.execute(f"TRUNCATE {table}")
    cursor.copy_expert(f"COPY {table} ({', '.join(frame.columns)}) FROM STDIN (FORMAT csv)", text)


def upsert(table: str) -> str:
    """The statement that brings `csv_changed` into a table; a sale that no longer counts stays, with seq 0."""
    new = ", ".join(f"{name} = excluded.{name}" for name in _STORED[1:])
    return f"INSERT INTO {table} ({NAMES}) SELECT {NAMES} FROM csv_changed ON CONFLICT (sale_id) DO UPDATE SET {new}"


def _json(offsets: dict[int, int]) -> str:
    return json.dumps({str(partition): offset for partition, offset in offsets.items()})
