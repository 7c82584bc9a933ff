"""The rows that were there before the stream: read in chunks without locks, and what of the stream they cover.

The stream pauses from the taking of a chunk's snapshot to the Kafka commit of the chunk. Then, of any change that the
stream brings until it has passed what the chunks saw:
- its key lies in a range that was read: the chunk has it if the snapshot saw its transaction; else it is emitted;
- its key lies behind the last range: it is left to a later chunk, and its transaction is remembered, because a
  commit reaches the log before it becomes visible: that chunk's snapshot is retaken until it sees all of them.
The reversal and the sale of a key change lie in ranges of their own.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from psycopg2 import sql

from sources.position_store import Range
from sources.postgres.database import Database
from sources.postgres.rows import COLUMNS, ChangeEvent, Values
from sources.postgres.stream import TransactionChanges

# About 100 ms of reading and writing: the stream pauses that long.
CHUNK_ROWS = 10_000
# The same for rows with long texts, and far below the gigabyte that the producer's queue holds.
CHUNK_BYTES = 16_000_000
# What of a row may be long.
_TEXTS = tuple(name for name in COLUMNS if name not in ("sold_at", "quantity", "amount"))
# A commit becomes visible within microseconds of reaching the log, except where it waits for a standby.
RETAKES, RETAKE_SECONDS = 50, 0.002
_XID_SPAN = 1 << 32
# Signature, flags and length of an empty extension: the header of a binary COPY.
_COPY_HEAD = 19


@dataclass(frozen=True)
class Visible:
    """What a `pg_snapshot` sees: transaction ids are 64 bits, epoch included."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Visible:
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def sees(self, xid: int) -> bool:
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def sees_all_of(self, other: Visible) -> bool:
        """Whether every transaction that `other` sees is seen here."""
        unseen_here = (xid for xid in self.running if other.sees(xid))
        return self.xmax >= other.xmax and not any(unseen_here)


def full_xid(xid: int, near: int) -> int:
    """The 64-bit id of a transaction that the stream names by 32 bits; `near` is a full id less than 2^31 away."""
    distance = (xid - near) % _XID_SPAN
    return near + (distance if distance < _XID_SPAN // 2 else distance - _XID_SPAN)


@dataclass(frozen=True)
class Chunk:
    """Rows of one range as they were in one snapshot."""

    range: Range
    rows: list[Values]


class Snapshot:
    """The state of a snapshot under way; `ranges` and `unseen` are stored with the position."""

    def __init__(self, database: Database, base: str, ranges: Iterable[Range], unseen: Iterable[int]) -> None:
        self._database = database
        self._base = Visible.parse(base)
        self._near = self._base.xmax
        self.ranges: list[Range] = list(ranges)
        self._seen = [Visible.parse(r.snapshot) for r in self.ranges]
        self.unseen = set(unseen)
        # Transactions that the last snapshot did not see and that a chunk has to.
        self.awaited: list[int] = []
        self._key, self._collation = _key(database)

    def read(self) -> Chunk | None:
        """The next chunk; None when no snapshot yet sees all that was left to it: the stream has to go on meanwhile."""
        for _ in range(RETAKES):
            with self._database.reading():
                ((text,),) = self._database.ask("select pg_current_snapshot()::text")
                snapshot = Visible.parse(text)
                if snapshot.sees_all_of(self._base) and all(map(snapshot.sees, self.unseen)):
                    return self._read(text)
                self.awaited = self._awaited(snapshot)
            time.sleep(RETAKE_SECONDS)
        return None

    def _awaited(self, snapshot: Visible) -> list[int]:
        """What a chunk has to see and this snapshot does not."""
        left = {xid for xid in self.unseen if not snapshot.sees(xid)}
        return sorted(left | {xid for xid in snapshot.running if self._base.sees(xid)})

    def _read(self, snapshot: str) -> Chunk:
        after = self.ranges[-1].upper_key if self.ranges else None
        upper = self._upper(after)
        query = sql.SQL(
            "copy (select {} from only {} where {} order by {}) to stdout (format binary)"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, COLUMNS)),
            self._database.identifier,
            self._within(after, upper),
            self._key,
        )
        rows = list(copied_rows(self._database.copy(query)))
        return Chunk(Range(len(self.ranges), upper, snapshot), rows)

    def _upper(self, after: str | None) -> str | None:
        """The key that a chunk ends with, by rows or by bytes, whichever comes first; None if the table ends before.

        A chunk has at least one row. The length of a text is known without fetching it from where it is kept.
        """
        query = sql.SQL(
            "select k from (select {key} k, row_number() over all_before n, sum({bytes}) over all_before b "
            "from only {table} where {within} window all_before as (order by {key} rows unbounded preceding) "
            "order by {key} limit {rows}) chunk where n = {rows} or b >= {limit} order by n limit 1"
        ).format(
            key=self._key,
            bytes=sql.SQL(" + ").join(
                sql.SQL("coalesce(octet_length({}), 0)").format(sql.Identifier(name)) for name in _TEXTS
            ),
            table=self._database.identifier,
            within=self._within(after, None),
            rows=sql.Literal(CHUNK_ROWS),
            limit=sql.Literal(CHUNK_BYTES),
        )
        rows = self._database.ask(query)
        return rows[0][0] if rows else None

    def _within(self, after: str | None, upper: str | None) -> sql.Composable:
        bounds = [
            sql.SQL("{} {} {}").format(self._key, sql.SQL(sign), sql.Literal(bound))
            for sign, bound in ((">", after), ("<=", upper))
            if bound is not None
        ]
        return sql.SQL(" and ").join(bounds) if bounds else sql.SQL("true")

    def written(self, chunk: Chunk) -> None:
        """The chunk is in the log: from here on the stream may bring changes to its range."""
        self.ranges.append(chunk.range)
        self._seen.append(Visible.parse(chunk.range.snapshot))
        # The chunk's snapshot saw them, so every later one does.
        self.unseen.clear()

    def filter(self, transactions: Sequence[TransactionChanges]) -> list[TransactionChanges]:
        """The transactions without what a chunk has or will have. Keeps in `unseen` what it left to a chunk."""
        keys = list(
            {cast(bytes, values[0]) for transaction in transactions for _, values in transaction.events}
        )
        if not keys:
            return list(transactions)
        place, now = self._places(keys)
        # Transactions of the stream began before this query.
        self._near = now.xmax
        kept = [TransactionChanges(t.begin, self._kept(t, place)) for t in transactions]
        self.unseen = {xid for xid in self.unseen if not now.sees(xid)}
        return kept

    def _kept(self, transaction: TransactionChanges, place: dict[bytes, int]) -> list[ChangeEvent]:
        xid = full_xid(transaction.begin.xid, self._near)
        kept = []
        for event in transaction.events:
            number = place[cast(bytes, event[1][0])]
            if number == len(self.ranges):
                self.unseen.add(xid)
            elif not self._seen[number].sees(xid):
                kept.append(event)
        return kept

    def _places(self, keys: list[bytes]) -> tuple[dict[bytes, int], Visible]:
        """In which range each key lies, by the database's own order; the number of ranges is: in none of them."""
        uppers = [r.upper_key for r in self.ranges if r.upper_key is not None]
        # width_bucket counts the bounds that are not greater; a range holds its upper bound, hence the equality.
        query = sql.SQL(
            "select n, b - (b > 0 and u[b] = key)::int, pg_current_snapshot()::text from (select n, key, u, "
            "width_bucket(key, u) b from (select n, k {collate} key, %s::text[] u from "
            "unnest(%s::text[]) with ordinality t(k, n)) k) b"
        ).format(collate=self._collation)
        answer = self._database.ask(query, (uppers, [key.decode() for key in keys]))
        return {keys[n - 1]: number for n, number, _ in answer}, Visible.parse(answer[0][2])


def _key(database: Database) -> tuple[sql.Composable, sql.Composable]:
    """The key column, and the clause that makes other values compare as it does."""
    ((schema, collation),) = database.ask(
        "select n.nspname, c.collname from pg_attribute a join pg_collation c on c.oid = a.attcollation "
        "join pg_namespace n on n.oid = c.collnamespace where a.attrelid = %s::regclass and a.attname = 'sale_id'",
        (database.identifier.as_string(database.connection),),
    )
    return sql.Identifier("sale_id"), sql.SQL("collate {}").format(sql.Identifier(schema, collation))


def copied_rows(data: bytes) -> Iterable[Values]:
    """The rows of a binary COPY."""
    at = _COPY_HEAD
    u16, i32 = struct.Struct(">h").unpack_from, struct.Struct(">i").unpack_from
    while True:
        (count,) = u16(data, at)
        at += 2
        if count < 0:
            return
        values: list[bytes | None] = []
        for _ in range(count):
            (length,) = i32(data, at)
            at += 4
            if length < 0:
                values.append(None)
            else:
                values.append(data[at : at + length])
                at += length
        yield values
