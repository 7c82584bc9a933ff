"""Deletes what Dagster itself never deletes: old runs, and events that belong to no run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.instance import RUNLESS_RUN_ID
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetEventTagsTable, SqlEventLogStorageTable

# A quarter of a year of nightly runs; observations of the last days.
KEEP_RUNS = timedelta(days=90)
KEEP_EVENTS = timedelta(days=14)
# With a file every 10 s there are 2,880 runs a day: successful ones are kept for days, others as all.
FREQUENT = ("csv_take", "soap_poll", "check_names")
KEEP_FREQUENT = timedelta(days=3)
# Runs are deleted one by one, with their events and logs; a night has room for so many, which is more than a day makes.
RUNS_AT_ONCE = 5_000


@dataclass(frozen=True)
class Pruned:
    runs: int
    events: int


def prune(instance: DagsterInstance, now: datetime) -> Pruned:
    """Delete finished runs and runless events that are older than they are kept."""
    runs = _prune_runs(instance, RunsFilter(statuses=FINISHED_STATUSES, updated_before=now - KEEP_RUNS))
    for job in FREQUENT:
        went_well = [DagsterRunStatus.SUCCESS]
        # The last one's numbers are what its asset shows, however long ago it was.
        newest = instance.get_run_records(RunsFilter(job_name=job, statuses=went_well), limit=1)
        old = RunsFilter(job_name=job, statuses=went_well, updated_before=now - KEEP_FREQUENT)
        runs += _prune_runs(instance, old, {record.dagster_run.run_id for record in newest})
    return Pruned(runs, _prune_events(instance, now - KEEP_EVENTS))


def _prune_runs(instance: DagsterInstance, old: RunsFilter, kept: Collection[str] = ()) -> int:
    records = instance.get_run_records(old, limit=RUNS_AT_ONCE, ascending=True)
    ids = [record.dagster_run.run_id for record in records if record.dagster_run.run_id not in kept]
    for run_id in ids:
        instance.delete_run(run_id)
        # What the run printed is in files, which Dagster leaves.
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    return len(ids)


def _prune_events(instance: DagsterInstance, before: datetime) -> int:
    """Runless events older than `before`, except the last of each kind of each asset: those are shown."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"events are kept in {type(storage).__name__}, which is no SQL database")
    events = SqlEventLogStorageTable
    runless = events.c.run_id == RUNLESS_RUN_ID
    last = (
        sa.select(sa.func.max(events.c.id))
        .where(runless)
        .group_by(events.c.asset_key, events.c.dagster_event_type)
    )
    # Event times are kept as UTC without a zone.
    old = sa.and_(runless, events.c.timestamp < before.replace(tzinfo=None), events.c.id.not_in(last))
    with storage.index_connection() as connection:
        tags = AssetEventTagsTable
        connection.execute(sa.delete(tags).where(tags.c.event_id.in_(sa.select(events.c.id).where(old))))
        return int(connection.execute(sa.delete(events).where(old)).rowcount)
