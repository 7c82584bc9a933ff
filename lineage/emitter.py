"""Run events: START when a run begins, RUNNING while it goes on, COMPLETE or FAIL at its end.

A run whose process was killed is ended with ABORT by the next process of that name, or by another one within a minute.
Emitting does not block the caller: a thread builds the events and puts them into the outbox; its failures are logged.
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
# On shutdown: wait this long for the backend; undelivered events stay on disk for the next process.
CLOSE_SECONDS = 2.0
# Before that, the queued events are written to files: seconds only on a busy machine.
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
    report: ProgressReport


OnProgress = Callable[[ProgressReport], None]


def no_progress(_: ProgressReport) -> None:
    """An `OnProgress` that discards the report."""


class ProgressCell:
    """The newest report: set by the running job, read by the emitter."""

    def __init__(self) -> None:
        self.report = ProgressReport()

    def __call__(self) -> ProgressReport:
        return self.report

    def set(self, report: ProgressReport) -> None:
        """An `OnProgress` that stores the report."""
        self.report = report


class NullEmitter:
    """Emits nothing."""

    def run(
        self, job: JobFactory, report: ReportSource = ProgressReport, **_: Any
    ) -> AbstractContextManager[None]:
        return nullcontext()


NULL_EMITTER = NullEmitter()


class LineageEmitter:
    """The runs of one process. A thread builds the jobs and writes the events to files."""

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
        self._open_runs = OpenRuns(folder)
        self._is_alone, self._every_seconds = is_alone, every_seconds
        self._jobs: dict[str, Job] = {}
        self._queue: queue.SimpleQueue[_Emission | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="lineage", daemon=True)
        self._thread.start()

    @contextmanager
    def run(
        self,
        job: JobFactory,
        report: ReportSource = ProgressReport,
        *,
        parent: Parent | None = None,
        nominal: tuple[datetime, datetime | None] | None = None,
    ) -> Iterator[None]:
        """Emit a run for as long as the block lasts, and its end. `job` and `report` are called in other threads."""
        run = RunOf(str(uuid4()), parent, nominal)
        self._emit(run, job, START, report)
        ended = threading.Event()
        ticking = threading.Thread(target=self._tick, args=(run, job, report, ended), daemon=True)
        ticking.start()

        def end() -> None:
            ended.set()
            # No event of a run may follow its end.
            ticking.join()

        try:
            yield
        except BaseException as error:
            end()
            # What is no Exception interrupts: a signal, or Dagster's run is canceled.
            failed = isinstance(error, Exception) and not isinstance(error, Cancelled)
            self._emit(run, job, FAIL if failed else ABORT, report, error)
            raise
        end()
        self._emit(run, job, COMPLETE, report)

    def emit(
        self,
        run: RunOf,
        job: JobFactory,
        state: str,
        report: ProgressReport | None = None,
        at: datetime | None = None,
    ) -> None:
        """Emit one event of a run of this process or of another one."""
        self._queue.put(_Emission(run, job, state, at or datetime.now(UTC), report or ProgressReport()))

    def end_left(self, parent_run_id: str, state: str, error: str) -> int:
        """End the child runs that were killed with their parent; returns how many."""
        children = [child for child in self._open_runs.all() if child.parent == parent_run_id]
        for child in children:
            self.emit(
                RunOf(child.run_id), partial(_unknown_job, child.job), state, ProgressReport(error=error)
            )
        return len(children)

    def close(self) -> None:
        """Deliver what is queued; undelivered events stay on disk for the next process."""
        self._queue.put(None)
        self._thread.join(WRITTEN_SECONDS + CLOSE_SECONDS)

    def _tick(self, run: RunOf, job: JobFactory, report: ReportSource, ended: threading.Event) -> None:
        while not ended.wait(self._every_seconds):
            self._emit(run, job, RUNNING, report)

    def _emit(
        self,
        run: RunOf,
        job: JobFactory,
        state: str,
        report: ReportSource,
        error: BaseException | None = None,
    ) -> None:
        try:
            progress = report()
        except Exception as failure:
            _log.warning(
                "progress of a run could not be read; its event is emitted without",
                run=run.id,
                reason=repr(failure),
            )
            progress = ProgressReport()
        self.emit(run, job, state, progress if error is None else replace(progress, error=error))

    def _main(self) -> None:
        try:
            # Importing the OpenLineage client takes a second, which no start waits for.
            outbox = self._make_outbox()
        except Exception as error:
            _log.warning("lineage events are not emitted: no outbox", reason=repr(error))
            self._drop()
            return
        if self._is_alone:
            self._guarded(lambda: self._abort(outbox, self._open_runs, self._open_runs.hold()))
        inherit_at = time.monotonic() + self._every_seconds
        while True:
            try:
                emission = self._queue.get(timeout=max(0.0, inherit_at - time.monotonic()))
            except queue.Empty:
                self._guarded(lambda: self._inherit(outbox))
                inherit_at = time.monotonic() + self._every_seconds
                continue
            if emission is None:
                break
            self._guarded(partial(self._write, outbox, emission))
        outbox.close(CLOSE_SECONDS)
        self._open_runs.release()

    def _drop(self) -> None:
        """Discard what is queued: it would grow without a consumer."""
        while self._queue.get() is not None:
            pass

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            # A full disk here must not stop the data flow.
            _log.warning("a lineage event is lost", reason=repr(error))

    def _write(self, outbox: Outbox, emission: _Emission) -> None:
        """An open run is stored before its START and deleted after its end, so a kill in between ends it later."""
        job = self._jobs.get(emission.run.id) or emission.job()
        if emission.state == START:
            self._jobs[emission.run.id] = job
            parent = None if emission.run.parent is None else emission.run.parent.run_id
            self._open_runs.begin(OpenRun(emission.run.id, job.name, parent))
        self._put(outbox, emission, job)
        if emission.state in (COMPLETE, FAIL, ABORT):
            self._jobs.pop(emission.run.id, None)
            self._open_runs.end(emission.run.id)

    def _put(self, outbox: Outbox, emission: _Emission, job: Job) -> None:
        from lineage import events

        outbox.put(
            events.event(self._naming, emission.run, job, emission.state, emission.at, emission.report)
        )

    def _abort(self, outbox: Outbox, open_runs: OpenRuns, left: Iterable[OpenRun]) -> None:
        """End the runs that a dead process left open."""
        for run in left:
            job, report = partial(_unknown_job, run.job), ProgressReport(error=KILLED)
            self._put(outbox, _Emission(RunOf(run.run_id), job, ABORT, datetime.now(UTC), report), job())
            open_runs.end(run.run_id)

    def _inherit(self, outbox: Outbox) -> None:
        """Take over runs and events of dead processes whose names are not used again: a slice, a removed instance."""
        if self._folder is not None and self._is_alone:
            for folder in orphans(self._folder):
                outbox.take_over(folder)
                open_runs = OpenRuns(folder)
                self._abort(outbox, open_runs, open_runs.all())


def _unknown_job(name: str) -> Job:
    """A job by its name only; its inputs and outputs were emitted with START."""
    return Job(name, BATCH, "", (), ())


Emitter = LineageEmitter | NullEmitter
Known = KafkaSettings | SalesDbSettings | ResultsDbSettings | CsvSettings | SoapSettings


@contextmanager
def open_emitter(
    process: str, *known: Known, settings: LineageSettings | None = None, is_alone: bool = True
) -> Iterator[LineageEmitter]:
    """The emitter of a process for as long as the block lasts; `known` settings name its datasets.

    Processes of one name share the undelivered events, and one of them delivers. With `is_alone`, the emitter ends the
    runs that its predecessor left open.
    """
    settings = settings or LineageSettings()
    folder = settings.lineage_dir and settings.lineage_dir.absolute() / process.replace(" ", "-")
    kafka = next((each for each in known if isinstance(each, KafkaSettings)), None)

    def make_outbox() -> Outbox:
        from lineage.outbox import Outbox
        from lineage.transports import queues

        return Outbox(queues(kafka), folder)

    naming = Naming(settings.lineage_namespace, Places(*known), settings.source_url)
    lineage = LineageEmitter(naming, make_outbox, folder, settings.lineage_every_seconds, is_alone=is_alone)
    try:
        yield lineage
    finally:
        lineage.close()
