"""Dagster's runs as OpenLineage: each asset's work is a run, whose parent is Dagster's run."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING
from uuid import uuid4

import dagster as dg

from contracts.datasets import Dataset
from contracts.settings import (
    CsvSettings,
    KafkaSettings,
    LineageSettings,
    ResultsDbSettings,
    SalesDbSettings,
    SoapSettings,
)
from electrored_dagster.metadata import NotSet, settings
from lineage.emitter import ABORT, COMPLETE, FAIL, START, Known, LineageEmitter, ReportSource, open_emitter
from lineage.model import BATCH, InputDataset, Job
from lineage.run import Parent, RunOf
from observability.progress_report import ProgressReport

if TYPE_CHECKING:
    from dagster._core.storage.dagster_run import RunRecord

# Processes of runs and sensors of the code server share one outbox.
PROCESS = "dagster"
CODE = "electrored_dagster/definitions.py"
SCHEDULED = ".dagster/scheduled_execution_time"
ENDS = {
    dg.DagsterRunStatus.SUCCESS: COMPLETE,
    dg.DagsterRunStatus.FAILURE: FAIL,
    dg.DagsterRunStatus.CANCELED: ABORT,
}
_ADDRESSES: tuple[type[Known], ...] = (
    KafkaSettings,
    SalesDbSettings,
    ResultsDbSettings,
    CsvSettings,
    SoapSettings,
)


def job_name(name: str) -> str:
    return f"dagster.{name}"


@contextmanager
def emitted(
    context: dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    job: Callable[[], Job],
    report: ReportSource,
) -> Iterator[None]:
    """Emit a step's work as a run, whose parent is Dagster's run."""
    run = context.run
    parent = Parent(settings(LineageSettings).lineage_namespace, job_name(run.job_name), run.run_id)
    with (
        open_emitter(PROCESS, *_known(), is_alone=False) as lineage,
        lineage.run(job, report, parent=parent, nominal=_nominal(run.tags.get(SCHEDULED))),
    ):
        yield


@cache
def server_emitter() -> LineageEmitter:
    """The emitter of sensors, which live as long as the code server: events are delivered at once."""
    until_the_end = ExitStack()
    # Also keeps a reference: a collected ExitStack closes what it holds.
    atexit.register(until_the_end.close)
    return until_the_end.enter_context(open_emitter(PROCESS, *_known(), is_alone=False))


def emit_end(lineage: LineageEmitter, instance: dg.DagsterInstance, record: RunRecord) -> None:
    """Emit a finished run of Dagster's with its times and checks, and end the runs that it left open."""
    run, ended = record.dagster_run, ENDS[record.dagster_run.status]
    checked = _checked(instance, run.run_id)
    job = _checking(run.job_name, checked)
    end = _moment(record.end_time) or datetime.now(UTC)
    error = None if ended == COMPLETE else f"Dagster's run ended as {run.status.value}"
    of = RunOf(run.run_id, nominal=_nominal(run.tags.get(SCHEDULED)))
    if ended != COMPLETE:
        lineage.end_left(run.run_id, ended, f"{error}, and this with it")
    lineage.emit(of, lambda: job, START, at=_moment(record.start_time) or end)
    lineage.emit(of, lambda: job, ended, ProgressReport(assertions=checked, error=error), at=end)


def emit_checks(lineage: LineageEmitter, sensor: str, evaluations: Sequence[dg.AssetCheckEvaluation]) -> None:
    """Emit the asset checks that a sensor evaluates, outside of any run of Dagster's, as a run of their own."""
    if not evaluations:
        return
    checked = _by_dataset(evaluations)
    job = _checking(sensor, checked)
    run = RunOf(str(uuid4()))
    lineage.emit(run, lambda: job, START)
    lineage.emit(run, lambda: job, COMPLETE, ProgressReport(assertions=checked))


def _checking(name: str, checked: Iterable[Dataset]) -> Job:
    return Job(job_name(name), BATCH, CODE, tuple(InputDataset(dataset) for dataset in checked), ())


def _checked(instance: dg.DagsterInstance, run_id: str) -> dict[Dataset, list[tuple[str, bool]]]:
    """Outcomes of the run's asset checks, by dataset."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    events = (entry.dagster_event for entry in entries)
    return _by_dataset(event.asset_check_evaluation_data for event in events if event is not None)


def _by_dataset(checks: Iterable[dg.AssetCheckEvaluation]) -> dict[Dataset, list[tuple[str, bool]]]:
    outcomes: dict[Dataset, list[tuple[str, bool]]] = {}
    for check in checks:
        system, *path = check.asset_key.path
        outcomes.setdefault(Dataset(system, tuple(path)), []).append((check.check_name, check.passed))
    return outcomes


def _known() -> Iterator[Known]:
    """The addresses that are set for this process."""
    for kind in _ADDRESSES:
        with suppress(NotSet):
            yield settings(kind)


def _nominal(scheduled: str | None) -> tuple[datetime, datetime | None] | None:
    return None if scheduled is None else (datetime.fromisoformat(scheduled), None)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
