"""Change capture: stream → events → one Kafka transaction with the position → confirmation of the slot."""

from __future__ import annotations

import gc
import select
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import cast

from prometheus_client import Gauge
from psycopg2 import extras

from contracts.registry import Registry
from contracts.schemas import load
from contracts.settings import KafkaSettings, SalesDbSettings
from contracts.topics import Topic
from observability import logs, metrics
from sources.errors import Interrupted, Refused
from sources.ledger import DeadLetters, Ledger, Position, Range, Record
from sources.postgres.database import Database, Slot, gone, translated
from sources.postgres.frontier import Frontier
from sources.postgres.rows import EPOCH, Encoder, Half, as_json
from sources.postgres.snapshot import Snapshot
from sources.postgres.stream import Place, Stream, lsn_text
from sources.postgres.where import Where

_log = logs.get(__name__)

SOURCE = "postgres"
# A Kafka transaction holds back every reader of its partitions, so it is kept to about 50 ms …
BATCH_SECONDS = 0.05
# … and to what fits the producer's queue several times over.
BATCH_CHANGES = 20_000
# Time is asked this seldom within a batch.
_LOOK = 256
# After a failure: soon, because the usual one is a restart of a server; then slower.
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_MICROSECOND = timedelta(microseconds=1)
# The connection tells the server nothing by itself: what is confirmed is what was just committed.
_NEVER_SECONDS = 86_400

_events = metrics.EVENTS.labels("capture")
lag_bytes = Gauge("electrored_lag_bytes", "WAL that is flushed and not yet in the log.")
frontier_seconds = Gauge("electrored_frontier_timestamp_seconds", "Every fact recorded up to here is in the log.")
retained_bytes = Gauge("electrored_slot_retained_bytes", "WAL that the replication slot keeps on the server's disk.")


@dataclass(frozen=True)
class Topics:
    events: Topic
    positions: Topic
    dead_letters: Topic


class Capture:
    """Runs sessions until it is told to stop or a person is needed."""

    def __init__(self, kafka: KafkaSettings, sales: SalesDbSettings, topics: Topics) -> None:
        self._kafka = kafka
        self._sales = sales
        self._topics = topics

    def run(self, stop: threading.Event) -> None:
        """Capture until `stop`. Raises Refused or Fenced; what is Interrupted is gone on with from the ledger."""
        failures = 0
        ledger = Ledger(
            self._kafka, SOURCE, f"sources.{SOURCE}.{self._sales.sales_slot}", self._topics.positions
        )
        try:
            while not stop.is_set():
                started = time.monotonic()
                try:
                    with translated():
                        Session(self._kafka, self._sales, self._topics, ledger).run(stop)
                except Interrupted as error:
                    failures = 0 if time.monotonic() - started > 2 * BACKOFF_SECONDS[-1] else failures + 1
                    wait = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
                    _log.warning("interrupted", reason=str(error), again_in_seconds=wait)
                    stop.wait(wait)
        finally:
            ledger.close()


class Session:
    """From the ledger's position until something breaks."""

    def __init__(self, kafka: KafkaSettings, sales: SalesDbSettings, topics: Topics, ledger: Ledger) -> None:
        self._topics = topics
        self._ledger = ledger
        schema_id = Registry(kafka).register(topics.events.subject, load(topics.events.schema))
        self._encoder = Encoder(schema_id, SOURCE)
        self._dead_letters = DeadLetters(kafka, topics.dead_letters)
        self._database = Database(sales)
        self._replication: extras.LogicalReplicationConnection | None = None
        self._cursor: extras.ReplicationCursor | None = None

    def run(self, stop: threading.Event) -> None:
        # What is alive now stays alive, and what a batch makes has no cycles: collecting would only cost.
        gc.freeze()
        gc.disable()
        try:
            self._open()
            while not stop.is_set():
                self._look_around()
                drained = self._fill(stop)
                self._commit(drained)
                if self._where.phase == "reading" and not self._stream.is_inside:
                    self._chunk()
        finally:
            gc.enable()
            self._database.close()
            if self._replication is not None:
                self._replication.close()

    def _open(self) -> None:
        """1. fence a predecessor  2. read the position  3. check it against the server  4. start the stream there."""
        self._ledger.open()
        database = self._database
        database.check()
        self._replication = database.replication()
        identity = database.identity(self._replication)
        slot = database.find_slot()
        if self._ledger.position is None:
            if slot is not None:
                raise Refused(
                    f"the slot {database.slot} exists, but the ledger knows nothing of it: it belongs to somebody else, or the "
                    f"topics were lost. Set ELECTRORED_SALES_SLOT to another, or: select pg_drop_replication_slot('{database.slot}');"
                )
            # Written first, so that a slot that is found after a crash is known to be ours.
            self._where = Where(identity, database.slot)
            self._ledger.write(Position(1, EPOCH, self._where.to_json()), {})
        self._position = cast(Position, self._ledger.position)
        self._where = Where.from_json(self._position.detail)
        if (self._where.identity, self._where.slot) != (identity, database.slot):
            raise Refused(
                f"the ledger's position is of slot {self._where.slot} on system {self._where.identity.system}, timeline "
                f"{self._where.identity.timeline}; this is slot {database.slot} on system {identity.system}, timeline "
                f"{identity.timeline}. Positions of one mean nothing on the other: connect the former, or start anew with empty topics"
            )
        if self._where.phase == "opening":
            self._begin(slot)
        else:
            self._resume(slot)
        self._start()

    def _begin(self, slot: Slot | None) -> None:
        """Make the slot, before the first chunk is read."""
        database = self._database
        if slot is not None:
            database.drop_slot()
        _log.info("making the slot; running transactions have to end first", slot=database.slot)
        lsn, base = database.create_slot(cast(extras.LogicalReplicationConnection, self._replication))
        self._where = replace(self._where, place=Place(lsn), phase="reading", base=base)
        self._write(self._where, self._position.next_seq, 0, {})

    def _resume(self, slot: Slot | None) -> None:
        place = self._where.place
        if slot is None:
            raise Refused(gone(self._where.slot, "is gone"))
        if slot.wal_status == "lost":
            raise Refused(gone(self._where.slot, "has lost its WAL (max_slot_wal_keep_size)"))
        if slot.confirmed_lsn > max(place.lsn, place.cut):
            raise Refused(
                gone(
                    self._where.slot,
                    f"stands at {lsn_text(slot.confirmed_lsn)}, beyond the ledger's {lsn_text(place.lsn)}: it was made again "
                    "or moved by somebody else, or the topics lost their end",
                )
            )
        if slot.active_pid is not None:
            _log.warning("ending the predecessor that holds the slot", slot=self._where.slot, pid=slot.active_pid)
            self._database.free_slot(slot.active_pid)

    def _start(self) -> None:
        database, where = self._database, self._where
        self._frontier = Frontier(_micros(self._position.frontier))
        self._stream = Stream(database.schema, database.table, where.place)
        self._snapshot = (
            None if where.phase == "done" else Snapshot(database, where.base, self._ledger.ranges, where.unseen)
        )
        cursor = cast(extras.LogicalReplicationConnection, self._replication).cursor()
        publication = database.publication.replace('"', '""')
        cursor.start_replication(
            slot_name=database.slot,
            start_lsn=where.place.lsn,
            options={"proto_version": "1", "publication_names": f'"{publication}"', "binary": "true"},
            status_interval=_NEVER_SECONDS,
        )
        self._cursor = cursor
        _log.info("capturing", table=database.name, slot=database.slot, lsn=lsn_text(where.place.lsn), snapshot=where.phase)

    def _look_around(self) -> None:
        """About once a second: ask for the server's WAL and clock, show where we are."""
        clock = time.monotonic()
        if not self._frontier.may_ask(clock):
            return
        gc.collect(0)
        now = self._database.now()
        self._frontier.asked(now.lsn, _micros(now.at), clock)
        # The answer says how far the stream is, even when there is nothing for us in it.
        self._cursor.send_feedback(reply=True, force=True)
        lag_bytes.set(max(0, now.lsn - self._where.place.lsn))
        retained_bytes.set(now.retained_bytes)

    def _fill(self, stop: threading.Event) -> bool:
        """Read until a batch is due; gives whether the stream is drained."""
        stream, feed, read = self._stream, self._stream.feed, self._cursor.read_message
        until = 0.0
        count = 0
        while True:
            message = read()
            if message is None:
                if not stream.is_inside and (
                    stream.size or self._where.phase == "reading" or self._frontier.is_answered(self._cursor.wal_end)
                ):
                    return True
                if not self._wait() or stop.is_set():
                    return not stream.is_inside
                continue
            feed(message.payload)
            count += 1
            if count % _LOOK == 1:
                clock = time.monotonic()
                if count == 1:
                    until = clock + BATCH_SECONDS
                elif clock > until or stream.size > BATCH_CHANGES:
                    return False

    def _wait(self) -> bool:
        """Wait for the stream, at most until the frontier wants to be looked at."""
        seconds = self._frontier.wait(time.monotonic())
        readable, _, _ = select.select([self._cursor], [], [], seconds)
        return bool(readable)

    def _commit(self, drained: bool) -> None:
        """Everything that was read → one Kafka transaction → the slot."""
        stream, place = self._stream, self._stream.place
        if drained:
            stream.pass_to(self._cursor.wal_end)
            place = stream.place
        segments = stream.take()
        where = replace(self._where, place=place)
        if self._snapshot is not None:
            segments = self._snapshot.filter(segments)
            where = replace(where, unseen=tuple(sorted(self._snapshot.unseen)))
            if where.phase == "passing" and place.lsn >= where.until:
                where = replace(where, phase="done", base="", until=0)
        frontier = self._frontier.published
        moved = None if stream.is_inside else self._frontier.candidate(place.lsn, stream.committed_at, time.monotonic())
        if moved is not None and where.phase == "done":
            frontier = moved
        if moved is None and where.phase == self._where.phase and not any(s.halves for s in segments):
            return
        records: list[Record] = []
        dead: list[Record] = []
        seq = self._position.next_seq
        for segment in segments:
            recorded_at = max(segment.begin.committed_at, self._frontier.published + 1)
            seq = self._encode(segment.halves, recorded_at, segment.begin.lsn, seq, records, dead)
        self._write(where, seq, frontier, {self._topics.events.name: records, self._topics.dead_letters.name: dead})

    def _encode(
        self, halves: Iterable[Half], recorded_at: int | None, lsn: int, seq: int, records: list[Record], dead: list[Record]
    ) -> int:
        """Append the halves' events, or dead letters; gives the next seq."""
        seq, refused = self._encoder.encode(halves, recorded_at, seq, records)
        for found in refused:
            reversal, values = found.half
            origin = self._database.name
            reason = f"{'reversal' if reversal else 'sale'}: {found.reason}"
            dead.append(
                self._dead_letters.record(f"{origin}/0/{lsn}/{seq}", origin, lsn, reason, as_json(values))
            )
            # It takes a seq of its own, so that its key is never used again.
            seq += 1
        return seq

    def _chunk(self) -> None:
        """Read one range of the table as it is now and write it with its snapshot; the stream rests meanwhile."""
        snapshot = cast(Snapshot, self._snapshot)
        chunk = snapshot.read()
        if chunk is None:
            return
        records: list[Record] = []
        dead: list[Record] = []
        seq = self._encode(
            ((False, values) for values in chunk.rows), None, self._where.place.lsn, self._position.next_seq, records, dead
        )
        where = replace(self._where, unseen=())
        if chunk.range.upper_key is None:
            where = replace(where, phase="passing", until=self._database.insert_lsn())
        self._write(
            where,
            seq,
            self._frontier.published,
            {self._topics.events.name: records, self._topics.dead_letters.name: dead},
            (chunk.range,),
        )
        snapshot.written(chunk)
        _log.info("chunk", number=chunk.range.number, rows=len(chunk.rows), last=chunk.range.upper_key is None)

    def _write(
        self, where: Where, seq: int, frontier: int, records: dict[str, list[Record]], ranges: Iterable[Range] = ()
    ) -> None:
        """1. commit events and position  2. only then confirm the slot."""
        done = where.phase == "done" and self._where.phase != "done"
        position = Position(seq, EPOCH + frontier * _MICROSECOND, where.to_json())
        self._ledger.write(position, records, ranges, forget_ranges=done)
        self._position, self._where = position, where
        if self._cursor is not None:
            self._frontier.published = frontier
            self._cursor.send_feedback(write_lsn=where.place.lsn, flush_lsn=where.place.lsn, force=True)
        if done:
            self._snapshot = None
            _log.info("the snapshot is whole; the stream goes on alone")
        frontier_seconds.set(frontier / 1_000_000)
        _events.inc(len(records.get(self._topics.events.name, ())))


def _micros(at: datetime | None) -> int:
    return 0 if at is None else (at - EPOCH) // _MICROSECOND
