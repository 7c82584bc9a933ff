"""The table and its publication, checked at a start and then against every change of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from psycopg2 import errors, sql

from kafka_client.errors import Refused, Retriable
from observability import logs
from observability.waits import WAITS
from sources.postgres import shape, table
from sources.postgres.database import Database
from sources.postgres.rows import COLUMNS, ChangeEvent
from sources.postgres.shape import Shape
from sources.postgres.snapshot import Visible, full_xid
from sources.postgres.table import Condition
from sources.postgres.watch import SESSION

_log = logs.get(__name__)

# pgoutput has had its binary format since 14, and since 15 it omits transactions without our tables.
OLDEST_SERVER = 150_000
# A commit is in the stream microseconds before it is visible, except when it waits for a standby.
LOOKS, LOOK_SECONDS = 500, 0.002


class Published:
    """The sales table in its publication. A change that was undone is noticed too, by its trace in the catalog.

    Every change of a publication, and of its tables, writes a new version of a row of the catalog, which has the
    transaction's id; recreated, it has another oid. `mark` stands for both and is part of the position,
    and so is the table's `shape`.
    """

    def __init__(self, database: Database, accepted: str) -> None:
        self._database = database
        self._accepted = accepted
        # The table that is captured, whatever its name; 0 until it is known.
        self.oid = 0
        self.mark = ""
        self.shape = Shape()
        self._condition: Condition | None = None
        # What the stream may still describe: the shape before the last change, until the stream has passed `_until`.
        self._former: Shape | None = None
        self._until = 0
        # Sampled sales whose quantity was another behind a cast.
        self._differing: set[str] = set()

    @property
    def kept(self) -> Shape:
        """The shape that belongs to the stream's place, for the position: a later start judges the change again."""
        return self.shape if self._former is None else self._former

    def watch(self) -> None:
        """Raise Refused when the table or its publication is not as `check` read them.

        Reads the catalog only, because reading the table itself would wait for its locks.
        """
        known, known_shape = self.mark, self.shape
        mark = self._look()
        if (mark, self._look_at_shape(), table.condition(self._database, self.oid)) == (
            known,
            known_shape,
            self._condition,
        ):
            if not self.kept.quantities and self._former is None:
                self._sample()
            return
        kept = self.kept
        try:
            self.check(self.oid)
        except Refused as error:
            if mark == known:
                raise
            raise Refused(
                f"{error} Detected while capture ran: what was changed in between is not in the log; if that can be, "
                "start anew with another slot and empty topics"
            ) from error
        self.check_history(known, kept)

    def look_behind(self, xid: int) -> Sequence[Sequence[str]]:
        """`watch`, once the transaction is visible; returns the allowed orders of the needed columns."""
        for _ in range(LOOKS):
            ((text,),) = self._database.ask("select pg_current_snapshot()::text")
            now = Visible.parse(text)
            if not xid or now.sees(full_xid(xid, now.xmax)):
                WAITS.end("transaction", SESSION)
                self.watch()
                return [list(seen.columns) for seen in (self.shape, self._former) if seen is not None]
            time.sleep(LOOK_SECONDS)
        ((standbys,),) = self._database.ask("select current_setting('synchronous_standby_names')")
        raise Retriable(
            f"transaction {xid} of the sales database is in its log and not visible yet, so what it did to the table "
            f"cannot be seen. It waits for a synchronous standby (synchronous_standby_names = '{standbys}'): bring the "
            "standby back, see pg_stat_replication, or take it out of alter system set synchronous_standby_names = …; "
            "select pg_reload_conf();",
            on="transaction",
        )

    def type_name(self, oid: int) -> str:
        """A type as it is written in SQL."""
        ((name,),) = self._database.ask("select format_type(%s, null)", (oid,))
        return str(name)

    def check_history(self, known: str, known_shape: Shape) -> None:
        """Raise Refused unless nothing was changed since then, or a person has accepted the change."""
        self._former = None
        if self._accepted == self._acceptance():
            # Earlier changes have the former order, and its quantities prove nothing.
            if known_shape.columns and list(known_shape.columns) != list(self.shape.columns):
                self._wait_for_stream(replace(known_shape, quantities={}), set())
            else:
                self._sample()
            return
        database = self._database
        if known and self.mark != known:
            raise Refused(
                f"the publication {database.publication}, or what it holds of {database.name}, was changed since "
                "capture last looked. It is complete now, but what was sold while it was not is not in the log: if "
                "that can be, start anew with another slot and empty topics. If the table was not written to "
                f"meanwhile, or it was complete all the time, {self._go_on()}"
            )
        if suspicions := self.shape.suspicions(known_shape):
            raise self._changed(suspicions)
        if self.shape.is_cast(known_shape) and (differing := self._others(known_shape.quantities)):
            # By an UPDATE, which the stream has, or by the cast.
            self._wait_for_stream(known_shape, differing)
            return
        if known_shape.columns and known_shape != self.shape:
            _log.info("the table was changed; its values are what they were", table=database.name)
        self._sample()

    def passed(self, events: Iterable[ChangeEvent], lsn: int) -> None:
        """The stream has shown these events, and everything that was committed below `lsn`; before that is written.

        A sampled sale that was changed or deleted is dropped from the sample. Raises Refused when the quantity of
        another one was changed by a cast.
        """
        if sampled := self.kept.quantities:
            keys = {sale_id.encode() for sale_id in sampled}
            if changed := {values[0] for reversal, values in events if reversal and values[0] in keys}:
                left = {key: quantity for key, quantity in sampled.items() if key.encode() not in changed}
                if self._former is None:
                    self.shape = replace(self.shape, quantities=left)
                else:
                    self._former = replace(self._former, quantities=left)
        if self._former is not None and lsn >= self._until:
            if self._differing & self._former.quantities.keys():
                raise self._changed(["quantity has another type, and some of its values are others"])
            self._former = None
            self._sample()

    def _wait_for_stream(self, former: Shape, differing: set[str]) -> None:
        """Hold the former shape until the stream has passed what is visible now."""
        self._former, self._differing = former, differing
        self._until = self._database.insert_lsn()

    def _changed(self, suspicions: Sequence[str]) -> Refused:
        return Refused(
            f"the table {self._database.name} was changed since capture last looked: {'; '.join(suspicions)}. The "
            "stream of changes does not show what that did to existing rows, so the log may hold other values than "
            "the table: start anew with another slot and empty topics. If every row has the values that it had "
            f"before, {self._go_on()}"
        )

    def _go_on(self) -> str:
        return f"go on with ELECTRORED_SALES_PUBLICATION_ACCEPTED={self._acceptance()}"

    def _acceptance(self) -> str:
        """Identifies the publication and the table as they are now."""
        return hashlib.sha256(repr((self.mark, self.shape)).encode()).hexdigest()[:16]

    def _others(self, quantities: Mapping[str, int]) -> set[str]:
        """Which of these sales have another quantity now. Waits for locks on the table."""
        query = sql.SQL("select sale_id, quantity from only {} where sale_id = any (%s)")
        rows = self._database.ask(query.format(self._database.identifier), (list(quantities),))
        return {sale_id for sale_id, quantity in rows if quantities[sale_id] != quantity}

    def _sample(self) -> None:
        """Keep some quantities as they are now; none while the table is locked."""
        ask = self._database.ask
        query = sql.SQL(
            "select sale_id, quantity from (select sale_id, quantity from only {} order by sale_id limit 10) first "
            "where quantity <> 0 and octet_length(sale_id) < 100"
        )
        ask("begin")
        try:
            ask("set local lock_timeout = '50ms'")
            rows = ask(query.format(self._database.identifier))
            # While this query's lock is held the table cannot be changed: an earlier change shows here.
            if self._look_at_shape() != self.shape:
                rows = []
        except errors.LockNotAvailable:
            rows = []
        finally:
            ask("rollback")
        self.shape = replace(self.shape, quantities=dict(rows))

    def _look(self) -> str:
        """Changes with every change of the publication, of what it holds of the table, and of the table's name."""
        database = self._database
        rows = database.ask(
            "select oid, xmin::text, '', '' from pg_publication where pubname = %(publication)s "
            "union all select r.oid, r.xmin::text, '', '' from pg_publication_rel r "
            "join pg_publication p on p.oid = r.prpubid where p.pubname = %(publication)s and (r.prrelid = %(oid)s "
            # Of a partition the table above it may be published in its place.
            "or r.prrelid in (select relid from pg_partition_ancestors(%(oid)s))) "
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
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def _look_at_shape(self) -> Shape:
        return Shape.of_rows(self._database.ask(shape.QUERY, {"oid": self.oid, "columns": list(COLUMNS)}))

    def check(self, oid: int = 0) -> None:
        """Raise Refused, with the SQL to run, unless capture can work here; `oid` is the table's if it is known."""
        database = self._database
        if database.connection.server_version < OLDEST_SERVER:
            raise Refused(
                f"PostgreSQL 15 or newer is needed, this is {database.connection.server_version // 10_000}"
            )
        ((wal_level, encoding),) = database.ask(
            "select current_setting('wal_level'), current_setting('server_encoding')"
        )
        if wal_level != "logical":
            raise Refused(
                "wal_level must be logical: alter system set wal_level = logical; and restart PostgreSQL"
            )
        if encoding == "SQL_ASCII":
            raise Refused("the database's encoding is SQL_ASCII: the characters of its texts are unknown")
        self.check_name(oid)
        # Then rows that a policy hides are an error, and never silently missing.
        database.ask("set row_security = off")
        self.oid = table.find(database)
        # Before the rest is checked, so that a change after this look is seen by the next.
        self.mark = self._look()
        self.shape = self._look_at_shape()
        condition = table.condition(database, self.oid)
        if condition is None:
            raise Refused(f"the table {database.name} (oid {self.oid}) is gone")
        table.check(database, self.oid, self.shape, condition, self.type_name)
        published = self._check_publication(condition)
        table.check_published(database, self.shape, condition, published)
        self._condition = condition
        if warning := table.refusing_changes(database, condition, published):
            _log.error(warning)

    def check_name(self, oid: int) -> None:
        """A known table must have kept its name: under another one its changes would not be captured."""
        if not oid:
            return
        names = self._database.ask(
            "select n.nspname || '.' || c.relname, c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where c.oid = %s or (n.nspname = %s and c.relname = %s)",
            (oid, self._database.schema, self._database.table),
        )
        now = {int(other_oid): name for name, other_oid in names}
        if now.get(oid, self._database.name) != self._database.name:
            raise Refused(
                f"the table {self._database.name} that was captured (oid {oid}) is now {now[oid]}: rename it back."
            )
        if now and oid not in now:
            raise Refused(
                f"{self._database.name} is another table than the one that was captured (oid {oid}), which is gone: "
                "start anew with another slot and empty topics."
            )

    def _check_publication(self, condition: Condition) -> list[str]:
        """The published columns, by the catalog."""
        database = self._database
        publication = database.ask(
            "select pubinsert and pubupdate and pubdelete and pubtruncate, pubviaroot from pg_publication "
            "where pubname = %s",
            (database.publication,),
        )
        if not publication:
            raise Refused(
                f"there is no publication {database.publication}: "
                f"create publication {database.publication} for table {database.name};"
            )
        ((publishes_all, via_root),) = publication
        if not publishes_all:
            raise Refused(
                f"the publication leaves changes out: alter publication {database.publication} "
                "set (publish = 'insert, update, delete, truncate');"
            )
        tables = database.ask(
            "select rowfilter, attnames::text[] from pg_publication_tables "
            "where pubname = %s and schemaname = %s and tablename = %s",
            (database.publication, database.schema, database.table),
        )
        if not tables and condition.is_partition and via_root:
            raise Refused(
                f"{database.name} is a partition, and its changes are published as those of the table above it: "
                f"alter publication {database.publication} set (publish_via_partition_root = false);"
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
        return list(names)
