"""Deletes what Dagster itself never deletes: old runs, and events that belong to no run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from dagster import DagsterInstance, RunsFilter
from dagster._core.instance import RUNLESS_RUN_ID
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetEventTagsTable, SqlEventLogStorageTable

# A quarter of a year of runs tells what became of each night; observations are for the last days.
KEEP_RUNS = timedelta(days=90)
KEEP_EVENTS = timedelta(days=14)
# Runs are deleted one by one, with their events; a night has room for so many.
RUNS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Pruned:
    runs: int
    events: int


def prune(instance: DagsterInstance, now: datetime) -> Pruned:
    """Delete finished runs and runless events that are older than they are kept."""
    return Pruned(
        runs=_prune_runs(instance, now - KEEP_RUNS), events=_prune_events(instance, now - KEEP_EVENTS)
    )


def _prune_runs(instance: DagsterInstance, before: datetime) -> int:
    old = RunsFilter(statuses=list(FINISHED_STATUSES), updated_before=before)
    records = instance.get_run_records(old, limit=RUNS_AT_ONCE, ascending=True)
    for record in records:
        instance.delete_run(record.dagster_run.run_id)
    return len(records)


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
