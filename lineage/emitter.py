"""Run events: START when a run begins, RUNNING while it goes on, COMPLETE or FAIL at its end.

A run whose process was killed is ended with ABORT by the next process of that name, or by another one within a minute.
Emitting does not block the caller: a thread builds the events and stores them in the outbox; its failures are logged.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
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
from lineage.outbox import OpenRun, Outbox
from lineage.run import Naming, Parent, RunOf
from observability import logs
from observability.progress_report import ProgressReport
from observability.waits import Cancelled

if TYPE_CHECKING:
    from lineage.delivery import Delivery

START, RUNNING, COMPLETE, FAIL, ABORT = "START", "RUNNING", "COMPLETE", "FAIL", "ABORT"
# On shutdown: wait this long for the backend; undelivered events stay on disk for the next process.
CLOSE_SECONDS = 2.0
# Before that, the queued events are stored: seconds only on a busy machine.
WRITTEN_SECONDS = 15.0
KILLED = "the process was killed"

_log = logs.get(__name__)


JobFactory = Callable[[], Job]
ReportSource = Callable[[], ProgressReport]


@dataclass
class _OpenRun:
    """A run of this process, and when its next RUNNING is due."""

    run: RunOf
    job: JobFactory
    report: ReportSource
    due_at: float
    has_ended: bool = False


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
    """The runs of one process. A thread builds the jobs, stores the events, and emits RUNNING of open runs."""

    _delivery: Delivery

    def __init__(self, naming: Naming, make_delivery: Callable[[], Delivery], every_seconds: float) -> None:
        self._naming = naming
        self._make_delivery = make_delivery
        self._every_seconds = every_seconds
        self._open_runs: list[_OpenRun] = []
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
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
        """Emit a run for as long as the block lasts, and its end. `job` and `report` are called in another thread."""
        due_at = time.monotonic() + self._every_seconds
        run = _OpenRun(RunOf(str(uuid4()), parent, nominal), cache(job), report, due_at)
        self.emit(run.run, run.job, START, _progress(run))
        self._queue.put(partial(self._open_runs.append, run))
        state, error = COMPLETE, None
        try:
            yield
        except BaseException as raised:
            # What is no Exception interrupts: a signal, or Dagster's run is canceled.
            failed = isinstance(raised, Exception) and not isinstance(raised, Cancelled)
            state, error = FAIL if failed else ABORT, raised
            raise
        finally:
            run.has_ended = True
            self.emit(run.run, run.job, state, _progress(run, error))

    def emit(
        self,
        run: RunOf,
        job: JobFactory,
        state: str,
        report: ProgressReport | None = None,
        at: datetime | None = None,
    ) -> None:
        """Emit one event of a run of this process or of another one."""
        self._queue.put(partial(self._write, run, job, state, report, at or datetime.now(UTC)))

    def end_left(self, parent_run_id: str, state: str, error: str) -> None:
        """End the child runs that were killed with their parent."""
        self._queue.put(partial(self._end_left, parent_run_id, state, error))

    def close(self) -> None:
        """Deliver what is queued; undelivered events stay on disk for the next process."""
        self._queue.put(None)
        self._thread.join(WRITTEN_SECONDS + CLOSE_SECONDS)

    def _main(self) -> None:
        try:
            # Importing the OpenLineage client takes a second, which no start waits for.
            self._delivery = self._make_delivery()
        except Exception as error:
            _log.warning("lineage events are not emitted: no outbox", reason=repr(error))
            # What is queued would grow without a consumer.
            while self._queue.get() is not None:
                pass
            return
        _guarded(self._inherit)
        inherit_at = time.monotonic() + self._every_seconds
        while True:
            if inherit_at <= time.monotonic():
                inherit_at = time.monotonic() + self._every_seconds
                _guarded(partial(self._inherit, of_others=True))
            self._emit_running()
            next_at = min([inherit_at, *(run.due_at for run in self._open_runs)])
            try:
                work = self._queue.get(timeout=max(0.0, next_at - time.monotonic()))
            except queue.Empty:
                continue
            if work is None:
                break
            _guarded(work)
        self._delivery.close(CLOSE_SECONDS)

    def _inherit(self, *, of_others: bool = False) -> None:
        """End the runs that predecessors left open, or dead processes whose names may not be used again."""
        for run in self._delivery.outbox.inherit(of_others=of_others):
            self._end(run, ABORT, KILLED)

    def _end_left(self, parent_run_id: str, state: str, error: str) -> None:
        for run in self._delivery.outbox.open_runs():
            if run.parent == parent_run_id:
                self._end(run, state, error)

    def _end(self, run: OpenRun, state: str, error: str) -> None:
        """End a run of another process. Its inputs and outputs were emitted with START."""
        job = Job(run.job, BATCH, "", (), ())
        self._write(RunOf(run.run_id), lambda: job, state, ProgressReport(error=error), datetime.now(UTC))

    def _emit_running(self) -> None:
        """Emit RUNNING of the runs that are due: stored at once, since queued it could follow the run's end."""
        self._open_runs[:] = [run for run in self._open_runs if not run.has_ended]
        for run in self._open_runs:
            # Its time is not after that of the end, which is taken later than `has_ended` is set.
            at = datetime.now(UTC)
            if run.due_at <= time.monotonic() and not run.has_ended:
                run.due_at = time.monotonic() + self._every_seconds
                _guarded(partial(self._write, run.run, run.job, RUNNING, _progress(run), at))

    def _write(
        self, run: RunOf, make_job: JobFactory, state: str, report: ProgressReport | None, at: datetime
    ) -> None:
        """An open run is stored before its START and deleted after its end, so a kill in between ends it later."""
        from lineage import events

        job, outbox = make_job(), self._delivery.outbox
        if state == START:
            outbox.begin(OpenRun(run.id, job.name, None if run.parent is None else run.parent.run_id))
        self._delivery.put(events.event(self._naming, run, job, state, at, report))
        if state in (COMPLETE, FAIL, ABORT):
            outbox.end(run.id)


def _guarded(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        # A full disk here must not stop the data flow.
        _log.warning("a lineage event is lost", reason=repr(error))


def _progress(run: _OpenRun, error: BaseException | None = None) -> ProgressReport:
    try:
        return replace(run.report(), error=error)
    except Exception as failure:
        _log.warning(
            "progress of a run could not be read; its event is emitted without",
            run=run.run.id,
            reason=repr(failure),
        )
        return ProgressReport(error=error)


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
    kafka = next((each for each in known if isinstance(each, KafkaSettings)), None)

    def make_delivery() -> Delivery:
        from lineage.delivery import Delivery
        from lineage.transports import queues

        folder = settings.lineage_dir and settings.lineage_dir.absolute()
        return Delivery(queues(kafka), Outbox(folder, process.replace(" ", "-"), is_alone=is_alone))

    naming = Naming(settings.lineage_namespace, Places(*known), settings.source_url)
    lineage = LineageEmitter(naming, make_delivery, settings.lineage_every_seconds)
    try:
        yield lineage
    finally:
        lineage.close()
