"""Runs of one job are shown as one: it runs while any of them does, whatever comes twice, late or never."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.pool import NullPool

from api.lineage import traced
from api.lineage_schemas import JobState, Lineage
from contracts.settings import ResultsDbSettings
from contracts.tables import lineage_runs
from lineage.emitter import ABORT, COMPLETE, FAIL, RUNNING, START
from lineage.run import FACET
from lineage.store import SILENT, keep
from observability.progress_report import ProgressReport
from streaming import lineage as of_streaming
from streaming.pipelines import PIPELINES
from tests.support.lineage_events import run_event

WORKER = of_streaming.worker(next(iter(PIPELINES.values())), 1)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
A, B, C = (f"0192c7b7-2b0c-7a30-8f6e-2f4f0e0a000{number}" for number in (1, 2, 3))


def said(run_id: str, state: str, minute: float = 0, watermark: float | None = None) -> bytes:
    """An event of a worker's run, so many minutes after `NOW`; so is its watermark."""
    made = run_event(WORKER, state, ProgressReport())
    made["run"]["runId"] = run_id
    made["eventTime"] = (NOW + timedelta(minutes=minute)).isoformat()
    if watermark is not None:
        made["run"]["facets"][FACET]["watermark"] = _after(watermark).isoformat()
    return json.dumps(made).encode()


def _after(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


@dataclass(frozen=True)
class LineageStore:
    """Writes events to the store, and reads what the API returns of them."""

    engine: Engine

    def keep(self, *events: bytes, minute: float = 30) -> None:
        with self.engine.begin() as connection:
            keep(connection, events, _after(minute))

    @property
    def job(self) -> JobState:
        with self.engine.connect() as connection:
            answer = traced(connection, WORKER.outputs[0].dataset.name, None, "upstream")
        (job,) = Lineage.model_validate_json(answer).jobs
        return job

    @property
    def runs(self) -> int:
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(lineage_runs)) or 0


@pytest.fixture
def kept(results_db: ResultsDbSettings) -> LineageStore:
    return LineageStore(create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool))


def test_one_that_ends_does_not_end_the_others_and_the_one_behind_says_how_far_the_job_is(
    kept: LineageStore,
) -> None:
    kept.keep(*(said(run, START) for run in (A, B, C)))
    kept.keep(said(A, RUNNING, 1, -5), said(B, RUNNING, 1, -3), said(C, RUNNING, 1, -9))
    assert (kept.job.state, kept.job.watermark) == (RUNNING, _after(-9))
    kept.keep(said(C, COMPLETE, 2, -9))
    assert (kept.job.state, kept.job.watermark) == (RUNNING, _after(-5))
    kept.keep(said(A, RUNNING, 3, 1), said(B, FAIL, 4, -3))
    assert (kept.job.state, kept.job.watermark, kept.job.told_at) == (RUNNING, _after(1), _after(4))
    kept.keep(said(A, COMPLETE, 5, 2))
    assert (kept.job.state, kept.job.watermark) == (COMPLETE, _after(2)), "as it said last"


def test_one_that_has_no_partition_says_no_watermark_and_holds_none_back(kept: LineageStore) -> None:
    kept.keep(said(A, RUNNING, 1, -5), said(B, RUNNING, 2))
    assert kept.job.watermark == _after(-5)


@pytest.mark.parametrize("order", list(permutations((START, RUNNING, COMPLETE))))
def test_in_whatever_order_a_run_is_told_it_is_over_and_so_it_stays(
    kept: LineageStore, order: tuple[str, ...]
) -> None:
    events = {START: said(A, START, 0), RUNNING: said(A, RUNNING, 1, 0), COMPLETE: said(A, COMPLETE, 2, 1)}
    for state in order:
        kept.keep(events[state])
    assert kept.job.state == COMPLETE
    # Delivered once more, after a kill between the backend's answer and the note of it.
    for event in events.values():
        kept.keep(event)
        assert kept.job.state == COMPLETE


def test_what_comes_late_of_a_run_says_nothing_of_its_successor(kept: LineageStore) -> None:
    kept.keep(said(A, START, 0), said(A, ABORT, 5), said(B, START, 6), said(B, RUNNING, 7, 6))
    kept.keep(said(A, RUNNING, 8, -9), said(B, RUNNING, 6.5, 5))
    assert (kept.job.state, kept.job.watermark, kept.job.told_at) == (RUNNING, _after(6), _after(7))
    kept.keep(said(B, COMPLETE, 9, 8))
    assert kept.job.state == COMPLETE


def test_one_that_nobody_hears_of_any_more_counts_no_more_until_it_speaks_again(kept: LineageStore) -> None:
    """Its machine is gone, with the note of its open run."""
    hour = SILENT / timedelta(minutes=1)
    kept.keep(said(A, RUNNING, 0, -60), said(B, RUNNING, 0, 0), minute=0)
    kept.keep(said(B, RUNNING, hour + 1, hour), minute=hour + 1)
    assert (kept.job.watermark, kept.runs) == (_after(hour), 1)
    kept.keep(said(A, RUNNING, hour + 2, 1), minute=hour + 2)
    assert kept.job.watermark == _after(1)


def test_of_runs_that_ended_nothing_is_kept_and_still_none_begins_again(kept: LineageStore) -> None:
    events = [said(A, START, 0), said(A, RUNNING, 1, 0), said(A, COMPLETE, 2, 1)]
    kept.keep(*events)
    much_later = 2 * SILENT / timedelta(minutes=1)
    kept.keep(b"no event", minute=much_later)
    assert kept.runs == 0
    kept.keep(*events, minute=much_later)
    assert (kept.runs, kept.job.state) == (0, COMPLETE)


def test_a_clock_that_is_ahead_holds_nothing_back(kept: LineageStore) -> None:
    kept.keep(said(A, START, 10_000), minute=0)
    kept.keep(said(A, COMPLETE, 5), minute=5)
    assert (kept.job.state, kept.job.told_at) == (COMPLETE, _after(5))


@pytest.mark.parametrize("place", ["run", "job"])
def test_a_name_that_no_index_takes_holds_nothing_back(kept: LineageStore, place: str) -> None:
    made = json.loads(said(A, START))
    made[place]["runId" if place == "run" else "name"] = secrets.token_hex(20_000)
    kept.keep(json.dumps(made).encode(), said(B, RUNNING, 1, 0))
    assert kept.job.watermark == _after(0)
