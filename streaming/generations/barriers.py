"""Barriers: generations of a pipeline rest at one and the same input position, so that they can be compared there.

A barrier is a row of the results database. Who takes part looks at it and reports to `barrier_reports`:

1. `requested`: every combine of the listed generations commits, reads nothing more, and reports where it stands.
2. `targeted`: each reads exactly up to the greatest position of all, commits, and reports that.
3. Merge and sink report how far they have come; when they are behind everything that combine wrote: `reached`.
4. Combine goes on when it has read `released` or `expired`, which is written into the row by whoever sees it first.
   So a snapshot that holds `reached` is older than everything that came after. Only where the table cannot be read
   until well after the barrier's end, combine goes on unasked; committed offsets show that to whoever compares.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, func, select, update
from sqlalchemy.dialects.postgresql import insert

from contracts.tables import barrier_reports, barriers
from observability import logs
from observability.supervision import reason
from observability.waits import WAITS
from streaming.engine.loop import Loop, Punctuator

OPEN = ("requested", "targeted", "reached")
# Live traffic rests while a barrier stands, so it is looked at often; otherwise it costs next to nothing.
LOOK_SECONDS = 0.5
STANDING_SECONDS = 0.05
# As long as a database that is there may take to answer that a barrier is over.
OVERDUE_SECONDS = 5.0

_log = logs.get(__name__)


@dataclass(frozen=True)
class Barrier:
    """A row of `barriers` that is neither released nor expired; `until` is its end on this process's own clock."""

    id: int
    generations: tuple[int, ...]
    state: str
    targets: Mapping[int, int]
    until: float


# barrier, generation, step, partition.
_Place = tuple[int, int, str, int]


class Barriers:
    """The barriers that stand, looked at and reported to by a thread, so that no loop ever waits for the database."""

    def __init__(self, results: Engine) -> None:
        self._results = results
        self._standing: dict[str, Barrier] = {}
        # What the database has not taken yet.
        self._reports: dict[_Place, int] = {}
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="barriers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def standing(self, pipeline: str, generation: int) -> Barrier | None:
        """The barrier that holds the generation.

        One that is overdue although nobody could say so in the table holds no more: the database is away then, and
        live traffic is not to wait for it. Whoever compares asks for the committed offsets, and sees who went on.
        """
        found = self._standing.get(pipeline)
        if found is None or generation not in found.generations or time.monotonic() > found.until:
            return None
        return found

    def report(self, barrier: Barrier, generation: int, step: str, offsets: Mapping[int, int]) -> None:
        """Have it noted how far the partitions of a step have come; without waiting, and for sure while it stands."""
        with self._lock:
            for partition, offset in offsets.items():
                self._reports[barrier.id, generation, step, partition] = offset
        self._wake.set()

    def look(self) -> None:
        """Read the table once; what is overdue is expired there, by whoever sees it first."""
        with self._results.begin() as connection:
            connection.execute(
                update(barriers)
                .where(barriers.c.state.in_(OPEN), barriers.c.expires_at < func.clock_timestamp())
                .values(state="expired")
            )
        left = func.extract("epoch", barriers.c.expires_at - func.clock_timestamp()).label("left")
        with self._results.connect() as connection:
            rows = connection.execute(select(barriers, left).where(barriers.c.state.in_(OPEN))).all()
        now = time.monotonic()
        self._standing = {
            row.pipeline: Barrier(
                row.id,
                tuple(row.generations),
                row.state,
                {int(partition): offset for partition, offset in (row.targets or {}).items()},
                now + float(row.left) + OVERDUE_SECONDS,
            )
            for row in rows
        }

    def tell(self) -> None:
        """Write the reports to barriers that still stand; those of others are of no use to anybody."""
        standing = {barrier.id for barrier in self._standing.values()}
        with self._lock:
            told = dict(self._reports)
        wanted = [
            dict(zip(("barrier", "generation", "step", "partition", "offset"), (*place, offset), strict=True))
            for place, offset in told.items()
            if place[0] in standing
        ]
        if wanted:
            noted = insert(barrier_reports)
            # Who took a partition over may have been quicker, and nobody goes back.
            further = func.greatest(barrier_reports.c.offset, noted.excluded.offset)
            with self._results.begin() as connection:
                connection.execute(
                    noted.on_conflict_do_update(
                        constraint=barrier_reports.primary_key, set_={"offset": further}
                    ),
                    wanted,
                )
        with self._lock:
            for place, offset in told.items():
                if self._reports[place] == offset:
                    del self._reports[place]

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._stop.is_set():
            # Before: what is reported from now on wakes the next wait.
            self._wake.clear()
            try:
                self.tell()
                self.look()
                pause = STANDING_SECONDS if self._standing else LOOK_SECONDS
                WAITS.end("postgres", "barriers")
                WAITS.turn("barriers")
            # Whatever it is: if nobody looked any more, a loop that is held would stay so.
            except Exception as error:
                _log.warning("barriers are looked at again", reason=reason(error))
                WAITS.begin("postgres", f"the results database does not answer: {reason(error)}", "barriers")
                WAITS.turn("barriers")
                self._stop.wait(LOOK_SECONDS)
            self._wake.wait(pause)
        WAITS.end("postgres", "barriers")
        WAITS.leave("barriers")


class BarrierReports:
    """What a step has told a barrier; the same is not told twice."""

    def __init__(self, barriers: Barriers, generation: int, step: str) -> None:
        self._barriers = barriers
        self._generation = generation
        self._step = step
        self._told: tuple[int, dict[int, int]] = (0, {})

    def tell(self, barrier: Barrier, offsets: Mapping[int, int]) -> None:
        told = self._told[1] if self._told[0] == barrier.id else {}
        news = {partition: offset for partition, offset in offsets.items() if told.get(partition) != offset}
        if news:
            self._barriers.report(barrier, self._generation, self._step, news)
            self._told = barrier.id, told | news


class CombineGate(Punctuator):
    """Holds a combine at the barriers of its generation.

    `first` is the number of its input's first partition: those of all inputs are counted through.
    """

    def __init__(self, barriers: Barriers, pipeline: str, generation: int, first: int) -> None:
        self._barriers = barriers
        self._pipeline = pipeline
        self._generation = generation
        self._first = first
        self._reports = BarrierReports(barriers, generation, "combine")
        self._held_for = 0

    def punctuate(self, loop: Loop) -> None:
        barrier = self._barriers.standing(self._pipeline, self._generation)
        if barrier is None:
            loop.release()
            return
        if barrier.id != self._held_for:
            # What the last one let it read, this one may not.
            loop.release()
            self._held_for = barrier.id
        if not loop.hold():
            return
        if barrier.targets:
            first = self._first
            loop.read_to({number - first: at for number, at in barrier.targets.items() if number >= first})
        if not loop.step.pending():
            at = {self._first + p: loop.step.progress(p).next_offset for p in loop.ready}
            self._reports.tell(barrier, at)


class MergeReporter(Punctuator):
    """Tells the barriers of a generation how far its merge has come, everything committed."""

    def __init__(self, barriers: Barriers, pipeline: str, generation: int) -> None:
        self._barriers = barriers
        self._pipeline = pipeline
        self._generation = generation
        self._reports = BarrierReports(barriers, generation, "merge")

    def punctuate(self, loop: Loop) -> None:
        barrier = self._barriers.standing(self._pipeline, self._generation)
        if barrier is not None and barrier.targets and not loop.step.pending():
            self._reports.tell(barrier, {p: loop.consumed(p) for p in loop.ready})
