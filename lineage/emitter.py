"""Runs that are told: START when one begins, RUNNING while it goes on, COMPLETE or FAIL at its end.

A run that its process did not end, because it was killed, is ended by the next one of that name, or by another one
within a minute: ABORT. Emitting costs its caller nothing: a thread makes the events and hands them to the outbox, and
what goes wrong there is logged.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from contracts.datasets import Places
from contracts.settings import (
    CsvSettings,
    KafkaSettings,
    LineageSettings,
    ResultsDbSettings,
    SalesDbSettings,
    SoapSettings,
)
from lineage.model import BATCH, Job
from lineage.open_runs import OpenRun, OpenRuns, orphans
from lineage.run import Naming, Parent, RunOf
from observability import logs
from observability.progress_report import ProgressReport
from observability.waits import Cancelled

if TYPE_CHECKING:
    from lineage.outbox import Outbox

START, RUNNING, COMPLETE, FAIL, ABORT = "START", "RUNNING", "COMPLETE", "FAIL", "ABORT"
# Who ends waits so long for a backend that answers; the rest is a successor's.
CLOSE_SECONDS = 2.0
# Before that its events become files, which waits for nobody else: only a busy machine takes seconds for it.
WRITTEN_SECONDS = 15.0
KILLED = "the process was killed"

_log = logs.get(__name__)


JobFactory = Callable[[], Job]
ReportSource = Callable[[], ProgressReport]


@dataclass(frozen=True)
class _Emission:
    run: RunOf
    job: JobFactory
    state: str
    at: datetime
    facts: ProgressReport


OnProgress = Callable[[ProgressReport], None]


def no_progress(_: ProgressReport) -> None:
    """For who runs without anybody who asks how far."""


class ProgressCell:
    """The newest report: set by what runs, read by the emitter."""

    def __init__(self) -> None:
        self.facts = ProgressReport()

    def __call__(self) -> ProgressReport:
        return self.facts

    def say(self, facts: ProgressReport) -> None:
        """As good as an assignment, for who is given a function."""
        self.facts = facts


class NullEmitter:
    """For who runs without anybody being told."""

    def run(
        self, job: JobFactory, facts: ReportSource = ProgressReport, **_: Any
    ) -> AbstractContextManager[None]:
        return nullcontext()


NULL_EMITTER = NullEmitter()


class LineageEmitter:
    """The runs of one process. Jobs are made, and events and files written, in a thread of its own."""

    def __init__(
        self,
        naming: Naming,
        make_outbox: Callable[[], Outbox],
        folder: Path | None,
        every_seconds: float,
        *,
        is_alone: bool = True,
    ) -> None:
        self._naming = naming
        self._make_outbox = make_outbox
        self._folder = folder
        self._notes = OpenRuns(folder)
        self._is_alone, self._every_seconds = is_alone, every_seconds
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[_Emission | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="lineage", daemon=True)
        self._thread.start()

    @contextmanager
    def run(
        self,
        job: JobFactory,
        facts: ReportSource = ProgressReport,
        *,
        parent: Parent | None = None,
        nominal: tuple[datetime, datetime | None] | None = None,
    ) -> Iterator[None]:
        """Tell of a run as long as the block lasts, and how it ended. `job` and `facts` are asked in other threads."""
        run = RunOf(str(uuid4()), parent, nominal)
        self._emit(run, job, START, facts)
        ended = threading.Event()
        ticking = threading.Thread(target=self._tick, args=(run, job, facts, ended), daemon=True)
        ticking.start()

        def end() -> None:
            ended.set()
            # Nothing is told of a run behind its end.
            ticking.join()

        try:
            yield
        except BaseException as error:
            end()
            # What is no Exception interrupts: a signal, or Dagster's run is canceled.
            failed = isinstance(error, Exception) and not isinstance(error, Cancelled)
            self._emit(run, job, FAIL if failed else ABORT, facts, error)
            raise
        end()
        self._emit(run, job, COMPLETE, facts)

    def emit(
        self,
        run: RunOf,
        job: JobFactory,
        state: str,
        facts: ProgressReport | None = None,
        at: datetime | None = None,
    ) -> None:
        """Tell of one moment of a run, this process's or another's."""
        self._queue.put(_Emission(run, job, state, at or datetime.now(UTC), facts or ProgressReport()))

    def end_left(self, parent_run_id: str, state: str, error: str) -> int:
        """End the runs that a run had started and that were killed with it; gives how many."""
        left = [begun for begun in self._notes.all() if begun.parent == parent_run_id]
        for begun in left:
            self.emit(RunOf(begun.run_id), partial(_nameless, begun.job), state, ProgressReport(error=error))
        return len(left)

    def close(self) -> None:
        """Hand over what was told; the rest is kept for a successor."""
        self._queue.put(None)
        self._thread.join(WRITTEN_SECONDS + CLOSE_SECONDS)

    def _tick(self, run: RunOf, job: JobFactory, facts: ReportSource, ended: threading.Event) -> None:
        while not ended.wait(self._every_seconds):
            self._emit(run, job, RUNNING, facts)

    def _emit(
        self, run: RunOf, job: JobFactory, state: str, facts: ReportSource, error: BaseException | None = None
    ) -> None:
        try:
            said = facts()
        except Exception as failure:
            _log.warning("a run could not say how far it is", run=run.id, reason=repr(failure))
            said = ProgressReport()
        self.emit(run, job, state, said if error is None else replace(said, error=error))

    def _main(self) -> None:
        try:
            # It takes a second to import what makes events, which no start waits for.
            outbox = self._make_outbox()
        except Exception as error:
            _log.warning("lineage is not told", reason=repr(error))
            self._drop()
            return
        if self._is_alone:
            self._guarded(lambda: self._abort(outbox, self._notes, self._notes.hold()))
        look_at = time.monotonic() + self._every_seconds
        while True:
            try:
                told = self._queue.get(timeout=max(0.0, look_at - time.monotonic()))
            except queue.Empty:
                self._guarded(lambda: self._inherit(outbox))
                look_at = time.monotonic() + self._every_seconds
                continue
            if told is None:
                break
            self._guarded(partial(self._write, outbox, told))
        outbox.close(CLOSE_SECONDS)
        self._notes.let_go()

    def _drop(self) -> None:
        """Take what is told, so that it is not kept for nobody."""
        while self._queue.get() is not None:
            pass

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            # Lineage is told, data is moved: a full disk here is no reason to stop that.
            _log.warning("something of lineage is lost", reason=repr(error))

    def _write(self, outbox: Outbox, told: _Emission) -> None:
        """A beginning is noted before it is told, an end told before the note goes: a kill between is made good."""
        job = self._jobs.get(told.run.id) or told.job()
        if told.state == START:
            self._jobs[told.run.id] = job
            parent = None if told.run.parent is None else told.run.parent.run_id
            self._notes.begin(OpenRun(told.run.id, job.name, parent))
        self._put(outbox, told, job)
        if told.state in (COMPLETE, FAIL, ABORT):
            self._jobs.pop(told.run.id, None)
            self._notes.end(told.run.id)

    def _put(self, outbox: Outbox, told: _Emission, job: Job) -> None:
        from lineage import events

        outbox.put(events.event(self._naming, told.run, job, told.state, told.at, told.facts))

    def _abort(self, outbox: Outbox, notes: OpenRuns, left: Iterable[OpenRun]) -> None:
        """End what a process that is gone had begun."""
        for begun in left:
            make, facts = partial(_nameless, begun.job), ProgressReport(error=KILLED)
            self._put(outbox, _Emission(RunOf(begun.run_id), make, ABORT, datetime.now(UTC), facts), make())
            notes.end(begun.run_id)

    def _inherit(self, outbox: Outbox) -> None:
        """What processes left that are gone, and whose names nobody took up again: a slice, a slot that is no more."""
        if self._folder is not None and self._is_alone:
            for folder in orphans(self._folder):
                outbox.take_over(folder)
                notes = OpenRuns(folder)
                self._abort(outbox, notes, notes.all())


def _nameless(name: str) -> Job:
    """A job of which no more is known; what it reads and writes was told at its start."""
    return Job(name, BATCH, "", (), ())


Emitter = LineageEmitter | NullEmitter
Known = KafkaSettings | SalesDbSettings | ResultsDbSettings | CsvSettings | SoapSettings


@contextmanager
def open_emitter(
    process: str, *known: Known, settings: LineageSettings | None = None, is_alone: bool = True
) -> Iterator[LineageEmitter]:
    """The lineage of a process with these settings, which name its datasets, for as long as the block lasts.

    Processes of one name share what waits, and one of them delivers; who `is_alone` ends what its predecessor left.
    """
    settings = settings or LineageSettings()
    folder = settings.lineage_dir and settings.lineage_dir.absolute() / process.replace(" ", "-")
    kafka = next((found for found in known if isinstance(found, KafkaSettings)), None)

    def make_outbox() -> Outbox:
        from lineage.outbox import Outbox
        from lineage.transports import lanes

        return Outbox(lanes(kafka), folder)

    naming = Naming(settings.lineage_namespace, Places(*known), settings.source_url)
    lineage = LineageEmitter(naming, make_outbox, folder, settings.lineage_every_seconds, is_alone=is_alone)
    try:
        yield lineage
    finally:
        lineage.close()
