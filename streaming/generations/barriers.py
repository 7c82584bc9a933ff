"""Barriers: generations of a pipeline pause at one input position, so that they can be compared there.

A barrier is a row of the results database. Participants poll it and report to `barrier_reports`:

1. `requested`: every combine of the listed generations commits, reads nothing more, and reports its position.
2. `targeted`: each reads exactly up to the greatest position of all, commits, and reports that.
3. Merge and sink report how far they have come; when they are behind everything that combine wrote: `reached`.
4. Combine resumes when it has read `released` or `expired`; the first process that sees an overdue barrier writes
   `expired`. So a snapshot that holds `reached` is older than everything that came after. Only if the table cannot be
   read until well after the barrier's end, combine resumes by itself; the comparison detects that by committed offsets.
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
# Live traffic is paused while a barrier is open, so it is polled often then.
LOOK_SECONDS = 0.5
STANDING_SECONDS = 0.05
# The longest that a reachable database may take to show that a barrier is over.
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
    """The open barriers, polled and reported to by a thread, so that no loop ever waits for the database."""

    def __init__(self, results: Engine) -> None:
        self._results = results
        self._standing: dict[str, Barrier] = {}
        # Not yet written to the database.
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

        An overdue one holds no more, even if the table does not have it as expired: the database is away then, and live
        traffic must not wait for it. The comparison checks the committed offsets, which show that.
        """
        barrier = self._standing.get(pipeline)
        if barrier is None or generation not in barrier.generations or time.monotonic() > barrier.until:
            return None
        return barrier

    def report(self, barrier: Barrier, generation: int, step: str, offsets: Mapping[int, int]) -> None:
        """Queue the positions of a step's partitions; does not wait, and is retried while the barrier is open."""
        with self._lock:
            for partition, offset in offsets.items():
                self._reports[barrier.id, generation, step, partition] = offset
        self._wake.set()

    def look(self) -> None:
        """Read the table once; overdue barriers are set to expired first."""
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

    def write_reports(self) -> None:
        """Write the queued reports of open barriers, and drop those of others."""
        standing = {barrier.id for barrier in self._standing.values()}
        with self._lock:
            reports = dict(self._reports)
        wanted = [
            dict(zip(("barrier", "generation", "step", "partition", "offset"), (*place, offset), strict=True))
            for place, offset in reports.items()
            if place[0] in standing
        ]
        if wanted:
            noted = insert(barrier_reports)
            # The new owner of a partition may have written first; positions never go back.
            further = func.greatest(barrier_reports.c.offset, noted.excluded.offset)
            with self._results.begin() as connection:
                connection.execute(
                    noted.on_conflict_do_update(
                        constraint=barrier_reports.primary_key, set_={"offset": further}
                    ),
                    wanted,
                )
        with self._lock:
            for place, offset in reports.items():
                if self._reports[place] == offset:
                    del self._reports[place]

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._stop.is_set():
            # Before: what is reported from now on wakes the next wait.
            self._wake.clear()
            try:
                self.write_reports()
                self.look()
                pause = STANDING_SECONDS if self._standing else LOOK_SECONDS
                WAITS.end("postgres", "barriers")
                WAITS.turn("barriers")
            # Any error: without this thread a held loop would never be released.
            except Exception as error:
                _log.warning("barriers are looked at again", reason=reason(error))
                WAITS.begin("postgres", f"the results database does not answer: {reason(error)}", "barriers")
                WAITS.turn("barriers")
                self._stop.wait(LOOK_SECONDS)
            self._wake.wait(pause)
        WAITS.end("postgres", "barriers")
        WAITS.leave("barriers")


class BarrierReports:
    """Reports the positions of a step to a barrier, each once."""

    def __init__(self, barriers: Barriers, generation: int, step: str) -> None:
        self._barriers = barriers
        self._generation = generation
        self._step = step
        self._reported: tuple[int, dict[int, int]] = (0, {})

    def report(self, barrier: Barrier, offsets: Mapping[int, int]) -> None:
        reported = self._reported[1] if self._reported[0] == barrier.id else {}
        news = {
            partition: offset for partition, offset in offsets.items() if reported.get(partition) != offset
        }
        if news:
            self._barriers.report(barrier, self._generation, self._step, news)
            self._reported = barrier.id, reported | news


class CombineGate(Punctuator):
    """Holds a combine at the barriers of its generation.

    `first` is the number of its input's first partition: the partitions of all inputs are numbered through.
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
            # The former barrier may have allowed more than this one.
            loop.release()
            self._held_for = barrier.id
        if not loop.hold():
            return
        if barrier.targets:
            first = self._first
            loop.read_to({number - first: at for number, at in barrier.targets.items() if number >= first})
        if not loop.step.pending():
            at = {self._first + p: loop.step.progress(p).next_offset for p in loop.ready}
            self._reports.report(barrier, at)


class MergeReporter(Punctuator):
    """Reports the committed position of merge to the barriers of its generation."""

    def __init__(self, barriers: Barriers, pipeline: str, generation: int) -> None:
        self._barriers = barriers
        self._pipeline = pipeline
        self._generation = generation
        self._reports = BarrierReports(barriers, generation, "merge")

    def punctuate(self, loop: Loop) -> None:
        barrier = self._barriers.standing(self._pipeline, self._generation)
        if barrier is not None and barrier.targets and not loop.step.pending():
            self._reports.report(barrier, {p: loop.consumed(p) for p in loop.ready})
