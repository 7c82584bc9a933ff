"""Change capture: stream → events → one Kafka transaction with the position → confirmation of the slot."""

from __future__ import annotations

import gc
import select
import threading
import time
from dataclasses import replace
from typing import cast

from prometheus_client import Gauge

from contracts.settings import KafkaSettings, SalesDbSettings
from kafka_client.errors import Retriable
from observability import logs
from observability.progress_report import ProgressReport
from observability.supervision import supervise
from observability.waits import WAITS, On
from sources.events_topic import EventsTopic
from sources.position_store import PositionStore
from sources.postgres import startup
from sources.postgres.database import Database
from sources.postgres.failures import translated
from sources.postgres.frontier import PERIOD_SECONDS, Frontier
from sources.postgres.history import History
from sources.postgres.lag import LAG
from sources.postgres.lsn import lsn_text
from sources.postgres.publication import Published
from sources.postgres.snapshot import Snapshot
from sources.postgres.stream import Stream
from sources.postgres.watch import CHUNK, SESSION, Watcher, report_unseen
from sources.postgres.writer import SOURCE, Topics, Writer

_log = logs.get(__name__)

# A Kafka transaction holds back every reader of its partitions: at most about 50 ms of changes …
BATCH_SECONDS = 0.05
# From the beginning of one transaction to that of the next, see the engine's loop.
PAUSE_SECONDS = 0.02
# … and no more than the producer's queue holds many times over, whatever the machine does in that time.
BATCH_CHANGES = 20_000
# A batch makes no reference cycles; failures and their tracebacks do.
COLLECT_SECONDS = 10.0
# The clock is read this seldom within a batch.
_LOOK = 256
# A topic that is recreated or gets more partitions is noticed this late.
TOPIC_SECONDS = 15.0
# After a failure: soon, because the usual one is a restart of a server; then slower.
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)

# Servers that a session needs: a committed transaction has used all of them.
_SERVERS: tuple[On, ...] = ("postgres", "kafka", "registry")


_frontier = Gauge(
    "electrored_frontier_timestamp_seconds", "Frontier: every fact recorded up to here is in the log"
)


class Capture:
    """Runs sessions until it is stopped or raises an error that needs a person."""

    def __init__(self, kafka: KafkaSettings, sales: SalesDbSettings, topics: Topics) -> None:
        self._kafka = kafka
        self._sales = sales
        self._topics = topics
        self._session: Session | None = None

    @property
    def _written(self) -> int:
        return 0 if self._session is None else self._session.written

    def report(self) -> ProgressReport:
        """The progress report; thread-safe."""
        return ProgressReport() if self._session is None else self._session.report()

    def run(self, stop: threading.Event) -> None:
        """Capture until `stop`. Raises Refused or Fenced; after Retriable it resumes from the stored position."""
        topics, own = self._topics, f"sources.{SOURCE}.{self._sales.sales_slot}"
        store = PositionStore(
            self._kafka, SOURCE, own, topics.positions, topics.events, (topics.dead_letters,)
        )

        def session() -> None:
            with translated():
                self._session = Session(self._kafka, self._sales, self._topics, store, self._written)
                self._session.run(stop)

        def on_failure(error: Exception, failures: int) -> bool:
            if not isinstance(error, Retriable):
                raise error
            if stop.is_set():
                # The call that it waited for was cancelled for the stop.
                return False
            if error.on is not None:
                WAITS.begin(error.on, str(error), SESSION)
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            _log.warning("interrupted", reason=str(error), again_in_seconds=pause)
            store.check_ownership()
            return True

        try:
            supervise(session, stop, BACKOFF_SECONDS, on_failure, steady_seconds=2 * BACKOFF_SECONDS[-1])
        finally:
            store.close()
            for on in (*_SERVERS, "transaction"):
                WAITS.end(on, SESSION)


class Session:
    """One session: from the stored position until an error or a stop."""

    def __init__(
        self,
        kafka: KafkaSettings,
        sales: SalesDbSettings,
        topics: Topics,
        store: PositionStore,
        written: int = 0,
    ) -> None:
        self._store = store
        self._writer = Writer(kafka, topics, store, sales.sales_table, written)
        self._events = EventsTopic(kafka, topics.events)
        self._database = Database(sales)
        self._published = Published(self._database, sales.sales_publication_accepted)
        # When to look around again, when at the topic; when the position was last handed to the writer, garbage taken.
        self._look_at = 0.0
        self._topic_at = time.monotonic() + TOPIC_SECONDS
        self._written_at = 0.0
        # Transactions that the next chunk waits for, as they were last reported.
        self._awaited: list[int] = []
        self._collected_at = time.monotonic()

    @property
    def written(self) -> int:
        """Events that are in the log, of the sessions before too."""
        return self._writer.written

    def report(self) -> ProgressReport:
        """The progress report of what was last handed to the writer."""
        return self._writer.report()

    def run(self, stop: threading.Event) -> None:
        """Read, write and confirm until `stop`; raises what ends it otherwise."""
        # What is alive now stays alive, and what a batch makes has no cycles: collecting would only cost. What is not
        # alive, as what an interrupted session left, would stay for ever, its connections included.
        gc.collect()
        gc.freeze()
        gc.disable()
        watcher = Watcher(self._database, stop)
        try:
            self._start()
            while not stop.is_set():
                WAITS.turn("capture")
                self._look_around()
                drained = self._fill(stop)
                self._commit(drained)
                if self._writer.state.phase == "reading" and self._stream.is_proven:
                    self._read_chunk()
            self._settle()
        finally:
            gc.enable()
            gc.unfreeze()
            self._writer.close()
            watcher.close()
            WAITS.end("transaction", CHUNK)
            self._database.close()

    def _start(self) -> None:
        database = self._database
        position, state, confirmed = startup.begin(self._store, database, self._published, self._events)
        self._writer.start(position, state)
        self._frontier = Frontier(self._writer.frontier)
        history = History(state.place, state.witness, confirmed)
        published = self._published
        self._stream = Stream(database.schema, database.table, published.oid, state.place, history, published)
        self._snapshot: Snapshot | None = None
        if state.phase != "done":
            self._snapshot = Snapshot(database, state.base, self._store.ranges, state.unseen)
        self._feed = database.replication()
        lsn = lsn_text(state.place.lsn)
        _log.info("capturing", table=database.name, slot=database.slot, lsn=lsn, snapshot=state.phase)

    def _look_around(self) -> None:
        """About once a second, whatever the stream does: query the server's WAL and clock, report the position."""
        clock = time.monotonic()
        if clock < self._look_at:
            return
        self._look_at = clock + PERIOD_SECONDS
        if clock > self._collected_at + COLLECT_SECONDS:
            # All generations: what a call that fails for seconds leaves, as an emit to a backend that is away, is old.
            gc.collect()
            self._collected_at = clock
        now = self._database.now()
        self._published.watch()
        if clock >= self._topic_at:
            self._topic_at = clock + TOPIC_SECONDS
            self._events.check(self._writer.state.topic, startup.ANEW)
        if self._frontier.may_ask:
            self._frontier.asked(now.lsn, now.at_micros, clock)
        # The answer is the position of the stream, even without changes of our table. In a long transaction it is
        # also the only message, without which the server ends the stream after wal_sender_timeout.
        self._feed.ask()
        LAG.set(max(0, now.lsn - self._writer.state.place.lsn))

    def _fill(self, stop: threading.Event) -> bool:
        """Read until a batch is due; returns whether the stream is drained."""
        stream, feed, read = self._stream, self._stream.feed, self._feed.read
        until = 0.0
        count = 0
        while True:
            message = read()
            if message is None:
                if not stream.is_inside and self._has_something() and self._has_rested():
                    return True
                if not self._wait() or stop.is_set():
                    return not stream.is_inside
                continue
            feed(message)
            count += 1
            if count % _LOOK == 1:
                clock = time.monotonic()
                if count == 1:
                    until = clock + BATCH_SECONDS
                elif clock > until or stream.size > BATCH_CHANGES:
                    return False

    def _has_something(self) -> bool:
        """Whether there is anything to do between two transactions of a drained stream."""
        if not self._stream.is_proven:
            return self._stream.is_due(self._feed.wal_end)
        return bool(
            self._stream.size
            or self._writer.state.phase == "reading"
            or self._frontier.is_answered(self._feed.wal_end)
        )

    def _has_rested(self) -> bool:
        """Whether the next transaction may begin: single commits that follow each other closely share one."""
        return time.monotonic() >= self._written_at + PAUSE_SECONDS

    def _wait(self) -> bool:
        """Wait for the stream, at most until `_look_around` is due; returns whether something came."""
        self._settle()
        until = self._look_at
        if not self._stream.is_inside and self._has_something():
            until = min(until, self._written_at + PAUSE_SECONDS)
        seconds = max(0.0, until - time.monotonic())
        readable, _, _ = select.select([self._feed], [], [], seconds)
        return bool(readable)

    def _commit(self, drained: bool) -> None:
        """Everything that was read → one Kafka transaction, if there is anything in it."""
        stream, writer = self._stream, self._writer
        if drained:
            stream.pass_to(self._feed.wal_end)
        if not stream.is_proven:
            return
        place = stream.place
        transactions = stream.take()
        self._published.passed(
            (event for transaction in transactions for event in transaction.events), place.lsn
        )
        state = replace(writer.state, place=place, witness=stream.witness, shape=self._published.kept)
        if self._snapshot is not None:
            transactions = self._snapshot.filter(transactions)
            state = replace(state, unseen=tuple(sorted(self._snapshot.unseen)))
            if state.phase == "passing" and place.lsn >= state.until:
                state = replace(state, phase="done", base="", until=0)
                self._snapshot = None
                _log.info("the snapshot is complete; the stream goes on alone")
        moved = None
        if not stream.is_inside:
            moved = self._frontier.candidate(place.lsn, stream.committed_at, time.monotonic())
        if moved is None and state.phase == writer.state.phase and not any(t.events for t in transactions):
            # Nothing for the log; but in a long transaction a restart shall not begin at its first row again.
            is_on = stream.is_inside and place != writer.state.place
            if not is_on or time.monotonic() < self._written_at + PERIOD_SECONDS:
                return
        frontier = moved if moved is not None and state.phase == "done" else writer.frontier
        batch = writer.changes(transactions)
        self._settle()
        self._written_at = time.monotonic()
        writer.write(batch, state, frontier)
        self._frontier.published = frontier

    def _settle(self) -> None:
        """Wait for the transaction under way; only then confirm its position to the slot."""
        if self._writer.is_busy:
            self._writer.settle()
            lsn = self._writer.state.place.lsn
            self._feed.confirm(lsn)
            for server in _SERVERS:
                WAITS.end(server, SESSION)
            _frontier.set(self._writer.frontier / 1_000_000)

    def _read_chunk(self) -> None:
        """Read one range of the table as it is now and write it with its snapshot; the stream pauses meanwhile."""
        snapshot, writer = cast(Snapshot, self._snapshot), self._writer
        self._settle()
        chunk = snapshot.read()
        if chunk is None:
            self._await(snapshot.awaited)
            return
        self._awaited = []
        WAITS.end("transaction", CHUNK)
        batch = writer.rows((False, values) for values in chunk.rows)
        state = replace(writer.state, unseen=(), seen=self._database.now().lsn)
        if chunk.range.upper_key is None:
            state = replace(state, phase="passing", until=self._database.insert_lsn())
        writer.write(batch, state, writer.frontier, (chunk.range,))
        self._settle()
        snapshot.written(chunk)
        last = chunk.range.upper_key is None
        _log.info("read a range of the table", number=chunk.range.number, rows=len(chunk.rows), last=last)

    def _await(self, xids: list[int]) -> None:
        """Report the transactions that the next chunk waits for; the stream goes on meanwhile."""
        if xids == self._awaited:
            return
        self._awaited = xids
        report_unseen(self._database, xids)
