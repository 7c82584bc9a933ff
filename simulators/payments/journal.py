"""The service's own list of confirmations, in a file: numbered, only added to, the same after a restart.

A cursor is the number of the last entry that was read, so it means the same for ever.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import astuple
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from simulators.payments.payment_outcomes import Entry

_TABLES = """
create table if not exists sales (sale_id text primary key, sold_at text not null) without rowid;
create index if not exists sales_sold_at on sales (sold_at);
create table if not exists waiting (
  due_at text, payment_id text, sale_id text, amount text, currency text, status text, confirmed_at text
);
create index if not exists waiting_due_at on waiting (due_at);
create table if not exists confirmations (
  number integer primary key autoincrement,
  payment_id text, sale_id text, amount text, currency text, status text, confirmed_at text
);
"""
_NAMES = "payment_id, sale_id, amount, currency, status, confirmed_at"


class UnknownCursor(ValueError):
    """A cursor that this list never gave."""


class Journal:
    """One file, used by all threads of one process."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(file, check_same_thread=False)
        self._db.execute("pragma journal_mode = wal")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        self._db.close()

    def latest_sale_at(self) -> datetime | None:
        """The greatest `sold_at` among the sales that were planned."""
        with self._lock:
            (text,) = self._db.execute("select max(sold_at) from sales").fetchone()
        return None if text is None else datetime.fromisoformat(text)

    def unknown(self, sale_ids: list[str]) -> set[str]:
        """Those of the sales that were not planned yet."""
        marks = ",".join("?" * len(sale_ids))
        with self._lock:
            rows = self._db.execute(f"select sale_id from sales where sale_id in ({marks})", sale_ids)
            return set(sale_ids) - {sale_id for (sale_id,) in rows}

    def plan(self, sales: Iterable[tuple[str, datetime]], entries: Iterable[Entry]) -> None:
        """Note sales as planned and what will become of their payments, together."""
        rows = [tuple(map(_text, astuple(entry))) for entry in entries]
        with self._lock, self._db:
            self._db.executemany(
                "insert into sales values (?, ?)", [(sale_id, _text(at)) for sale_id, at in sales]
            )
            self._db.executemany(f"insert into waiting (due_at, {_NAMES}) values (?, ?, ?, ?, ?, ?, ?)", rows)

    def add_due(self, now: datetime) -> int:
        """Add what is due to the list; gives how many entries."""
        with self._lock, self._db:
            added = self._db.execute(
                f"insert into confirmations ({_NAMES}) select {_NAMES} from waiting where due_at <= ? "
                "order by due_at, payment_id, status",
                (_text(now),),
            ).rowcount
            self._db.execute("delete from waiting where due_at <= ?", (_text(now),))
        return added

    def page(self, cursor: str, limit: int) -> tuple[list[tuple[str, ...]], str, bool]:
        """Entries behind the cursor as text, the cursor behind them, and whether there are more.

        Raises UnknownCursor.
        """
        if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise UnknownCursor(f"the cursor {cursor!r} is not one of ours")
        last = int(cursor or 0)
        with self._lock:
            (end,) = self._db.execute("select coalesce(max(number), 0) from confirmations").fetchone()
            rows = self._db.execute(
                f"select number, {_NAMES} from confirmations where number > ? order by number limit ?",
                (last, limit),
            ).fetchall()
        if last > end:
            raise UnknownCursor(f"the cursor {cursor!r} is behind the end of the list, {end}")
        reached = rows[-1][0] if rows else last
        return [row[1:] for row in rows], str(reached) if reached else "", reached < end


def _text(value: str | Decimal | datetime) -> str:
    """Times in UTC and of one length, so that their text has their order."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return format(value, "f") if isinstance(value, Decimal) else value
