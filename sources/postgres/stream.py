"""The stream of changes → change events, transaction by transaction. Pure.

Rows are counted, so that a transaction that was cut is resumed at the same row: a transaction is always sent with
the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Protocol

from kafka_client.errors import Refused
from sources.postgres import pgoutput
from sources.postgres.history import History, StreamPosition, Witness
from sources.postgres.lsn import lsn_text
from sources.postgres.pgoutput import UNCHANGED, Begin, Change, Relation, Row
from sources.postgres.rows import COLUMNS, ChangeEvent

_TEXTS = {25: "text", 1043: "varchar", 1042: "char"}
# By column the types that are understood, by oid.
TYPES = dict.fromkeys(COLUMNS, _TEXTS) | {
    # A blank-padded key would compare differently here and there.
    "sale_id": {25: "text", 1043: "varchar"},
    "sold_at": {1184: "timestamptz"},
    "quantity": {23: "integer", 21: "smallint", 20: "bigint"},
    "amount": {1700: "numeric"},
}


class Catalog(Protocol):
    """The catalog's current description of the table whose changes are in the stream."""

    def look_behind(self, xid: int) -> Sequence[Sequence[str]]:
        """Raise Refused unless the table is what it was, once transaction `xid` is visible.

        Returns the allowed orders of the needed columns: the table's, and the one before a change that was accepted.
        """

    def type_name(self, oid: int) -> str:
        """A type as it is written in SQL."""


@dataclass
class TransactionChanges:
    """What one source transaction adds to a batch; a cut one adds to several."""

    begin: Begin
    events: list[ChangeEvent] = field(default_factory=list)


class Stream:
    """Reads messages in order; `take` returns what came since its last call.

    What is below `place` is in the log: it is compared with that place's history, and not taken again.
    """

    def __init__(
        self, schema: str, table: str, oid: int, place: StreamPosition, history: History, catalog: Catalog
    ) -> None:
        self._wanted = (schema, table)
        self._catalog = catalog
        self._oid = oid
        self._history = history
        self._lsn = place.lsn
        self._tables: dict[int, Callable[[Row], Any] | None] = {}
        self._begin: Begin | None = None
        self._rows = 0
        # Changes of the open transaction that were in the log before this stream began.
        self._skip = 0
        self._transactions: list[TransactionChanges] = []
        self._events: list[ChangeEvent] = []
        # Changes and commits since `take`: the size of a batch; 0 if there is nothing to commit.
        self.size = 0
        # When the last whole transaction was committed, in microseconds of the Unix epoch.
        self.committed_at = 0

    @property
    def is_inside(self) -> bool:
        """Whether a transaction has begun whose commit has not come."""
        return self._begin is not None

    @property
    def is_proven(self) -> bool:
        """Whether this is the history of the place that it began with; nothing is taken before."""
        return self._history.is_proven

    def is_due(self, lsn: int) -> bool:
        """Whether the history is decided as soon as the stream has passed `lsn`."""
        return not self.is_proven and self._history.is_decided_by(lsn)

    @property
    def witness(self) -> Witness:
        """Identifies the history of `place`."""
        return Witness(self._history.last, self._begin if self.place.cut else None)

    @property
    def place(self) -> StreamPosition:
        """The position of the stream after everything that was fed."""
        if self._begin is None or self._begin.lsn < self._lsn:
            return StreamPosition(self._lsn)
        return StreamPosition(self._lsn, self._begin.lsn, max(self._rows, self._skip))

    def feed(self, data: bytes) -> None:
        """Take one message. Raises Refused for a change that no event can express, before anything is taken of it."""
        kind = data[0]
        if kind == pgoutput.INSERT or kind == pgoutput.UPDATE or kind == pgoutput.DELETE:
            pick = self._tables[pgoutput.relid(data)]
            if pick is None:
                return
            if self._rows < self._skip:
                self._rows += 1
                return
            if kind == pgoutput.INSERT:
                self._events.append((False, pick(pgoutput.inserted(data))))
            else:
                self._take(pgoutput.change(data), pick)
            self._rows += 1
            self.size += 1
        elif kind == pgoutput.BEGIN:
            self._open(pgoutput.begin(data))
        elif kind == pgoutput.COMMIT:
            self._close(pgoutput.commit(data))
        elif kind == pgoutput.RELATION:
            relation = pgoutput.relation(data)
            self._tables[relation.relid] = self._picker(relation)
        elif kind == pgoutput.TRUNCATE:
            self._truncate(pgoutput.truncated(data))
        elif kind not in (pgoutput.TYPE, pgoutput.ORIGIN):
            raise pgoutput.ProtocolError(f"unknown message {data[:1]!r}")

    def take(self) -> list[TransactionChanges]:
        """The events since the last call, by transaction; an open transaction goes on in the next call's."""
        transactions, self._transactions = self._transactions, []
        if self._begin is not None:
            if self._events:
                transactions.append(TransactionChanges(self._begin, self._events))
            self._events = []
        self.size = 0
        return transactions

    def pass_to(self, lsn: int) -> None:
        """The server has sent every commit below `lsn`. Only between transactions."""
        if self._begin is None:
            self._history.reached(lsn)
            self._lsn = max(self._lsn, lsn)

    def _open(self, begin: Begin) -> None:
        self._begin = begin
        self._events = []
        self._rows = 0
        # Changes that are sent again, because the slot is confirmed below the stored position.
        self._skip = self._history.done(begin)

    def _close(self, commit: pgoutput.Commit) -> None:
        if self._begin is None:
            raise pgoutput.ProtocolError("a commit without its begin")
        if self._rows:
            self._history.changed(self._begin, self._rows)
        if self._events:
            self._transactions.append(TransactionChanges(self._begin, self._events))
            self._events = []
        self._begin = None
        self._lsn = max(self._lsn, commit.end_lsn)
        self.committed_at = commit.committed_at
        self.size += 1

    def _take(self, change: Change, pick: Callable[[Row], Any]) -> None:
        """Take an UPDATE or a DELETE."""
        old, new = change.old, change.new
        if old is None:
            raise self._irreversible("the old row did not come with it")
        if change.old_is_key:
            raise self._irreversible("only the key of the old row came with it")
        before = pick(old)
        if new is None:
            self._events.append((True, before))
            return
        if UNCHANGED in new:
            new = [o if n is UNCHANGED else n for o, n in zip(old, new, strict=True)]
        after = pick(new)
        if after != before:
            self._events += ((True, before), (False, after))

    def _irreversible(self, why: str) -> Refused:
        schema, table = self._wanted
        return Refused(
            f"a row of {schema}.{table} was updated or deleted in the transaction that is committed at "
            f"{lsn_text(self._begin.lsn if self._begin else 0)}, and {why}, so it cannot be reversed. "
            f"For the changes to come: alter table {schema}.{table} replica identity full; "
            "this one is lost for the log: start anew with another slot and empty topics"
        )

    def _truncate(self, relids: tuple[int, ...]) -> None:
        if any(self._tables.get(relid) is not None for relid in relids):
            schema, table = self._wanted
            raise Refused(
                f"{schema}.{table} was truncated in the transaction that is committed at "
                f"{lsn_text(self._begin.lsn if self._begin else 0)}: a TRUNCATE does not list the rows "
                "that it removes, so they cannot be reversed (a DELETE does). The log still holds them: "
                "start anew with another slot and empty topics"
            )

    def _misnamed(self, relation: Relation) -> Refused:
        wanted, actual = ".".join(self._wanted), f"{relation.schema}.{relation.name}"
        what = (
            f"{wanted} (oid {self._oid}) was called {actual}"
            if relation.relid == self._oid
            else f"another table (oid {relation.relid}) was called {wanted}"
        )
        return Refused(
            f"{what} when it was changed in the transaction that is committed at "
            f"{lsn_text(self._begin.lsn if self._begin else 0)}, so what was sold is unknown: "
            "start anew with another slot and empty topics"
        )

    def _renamed(self, had: Sequence[str], now: Sequence[str]) -> Refused:
        return Refused(
            f"the columns of {'.'.join(self._wanted)} stood in another order ({', '.join(had)}; now {', '.join(now)}) "
            f"when it was changed in the transaction that is committed at "
            f"{lsn_text(self._begin.lsn if self._begin else 0)}: they had each other's names, or were recreated, so "
            "what was sold is unknown: start anew with another slot and empty topics"
        )

    def _picker(self, relation: Relation) -> Callable[[Row], Any] | None:
        is_named = (relation.schema, relation.name) == self._wanted
        if is_named != (relation.relid == self._oid):
            raise self._misnamed(relation)
        if not is_named:
            return None
        # The server describes a table again after every change of it, before the next change of a row.
        orders = self._catalog.look_behind(self._begin.xid if self._begin else 0)
        places = {column.name: place for place, column in enumerate(relation.columns)}
        types = {column.name: column.type_oid for column in relation.columns}
        check_columns(f"{relation.schema}.{relation.name}", types, self._catalog.type_name)
        if (had := [name for name in places if name in COLUMNS]) not in [list(order) for order in orders]:

            def refuse(row: Row) -> Any:
                raise self._renamed(had, orders[0])

            # Rows in the log were read by the order of their time; this description may hold for the rows behind them.
            if self._rows < self._skip:
                return refuse
            raise self._renamed(had, orders[0])
        return itemgetter(*(places[name] for name in COLUMNS))


def check_columns(table: str, types: Mapping[str, int], name_of: Callable[[int], str]) -> None:
    """Raise Refused unless every needed column is there with a type that is understood."""
    missing = [name for name in COLUMNS if name not in types]
    if missing:
        raise Refused(
            f"{table} has no column {', '.join(missing)} in what is published; capture stands before that change. "
            "A column that was renamed, or left out of the publication's column list, is put back there; one that was "
            "dropped took its values with it: start anew with another slot and empty topics"
        )
    for name in COLUMNS:
        if types[name] not in TYPES[name]:
            wanted = " or ".join(TYPES[name].values())
            raise Refused(
                f"{table}.{name} has the type {name_of(types[name])}, which capture cannot read; {wanted} is needed: "
                f"alter table {table} alter column {name} type {(best := next(iter(TYPES[name].values())))} "
                f"using {name}::{best};"
            )
