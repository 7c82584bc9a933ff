"""Files of sales: polled every five seconds, ingested by one run at a time, retracted on request."""
# No postponed annotations here: Dagster refuses an op whose context's type is text.

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from contracts import datasets
from contracts.settings import CsvSettings, KafkaSettings, ResultsDbSettings
from electrored_dagster import metadata
from electrored_dagster.asset_specs import described, evaluation, key
from electrored_dagster.column_lineage import came_from
from electrored_dagster.csv_policy import (
    CHECK,
    MOST_DOUBLINGS,
    NAMES_CHECK,
    Memory,
    Runs,
    look,
    reason_to_wait,
)
from electrored_dagster.metadata import NotSet, as_dagster_failure, settings
from electrored_dagster.openlineage import emit_checks, emitted, server_emitter
from lineage.emitter import ProgressCell
from sources import lineage as lineage_of

SALES = key(datasets.CSV_SALES)
# Ingestion and retraction never run at once; the source itself would refuse the second.
POOL = "csv"
# A short outage of Kafka or the database is retried within the run; after a longer one the sensor backs off.
RETRIES = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


@dg.multi_asset(
    name="take_csv_files",
    specs=[
        described(
            datasets.CSV_SALES,
            group="sources",
            kinds={"csv", "postgres"},
            deps=[datasets.CSV_INBOX],
            metadata=came_from(datasets.CSV_SALES),
            description="The sale that counts for each id in the files. A run takes all files that wait: their events "
            "go to sales-events, and what then counts is here, so that rows that come again are known.",
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            "reject_rate",
            asset=SALES,
            description="Of no file many rows are refused, or all, and no file as a whole.",
        ),
        dg.AssetCheckSpec(
            "files_agree",
            asset=SALES,
            description="Files of one modification time agree on each sale: which of them is newer is not known.",
        ),
        dg.AssetCheckSpec(
            NAMES_CHECK,
            asset=SALES,
            description="Nothing lies in the inbox under a name that is never taken.",
        ),
        dg.AssetCheckSpec(CHECK, asset=SALES, description="No file waits for more than ten minutes."),
    ],
    pool=POOL,
    retry_policy=RETRIES,
)
def csv_sales(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
    # pandas and polars take seconds to import, and the code server needs neither.
    from sources.csv.ingest import take

    progress = ProgressCell()
    with as_dagster_failure(), emitted(context, lineage_of.csv, progress):
        inbox = settings(CsvSettings)
        taking = take(settings(KafkaSettings), settings(ResultsDbSettings), inbox, on_progress=progress.set)
    now = datetime.now(UTC)
    for file in taking.files:
        context.log.info("%s: %s %s", file.name, file.outcome, file.reason)
    snapshot = look(inbox)
    context.log_event(snapshot.observation(now))
    checks = [
        metadata.reject_rate(taking),
        metadata.files_agree(taking),
        snapshot.check(now),
        snapshot.names_check(),
    ]
    yield dg.MaterializeResult(asset_key=SALES, metadata=metadata.taken(taking), check_results=checks)


csv_take = dg.define_asset_job(
    "csv_take",
    selection=[csv_sales],
    # A run has a single step: a process of its own for it would be most of what it costs.
    executor_def=dg.in_process_executor,
    description="Takes every file that waits in the inbox.",
)


# The daemon looks every 5 seconds; with an interval of 5, every other time.
@dg.sensor(job=csv_take, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def csv_inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Starts a run when files wait in the inbox, or when the last run was interrupted.

    It reads no file and calls no other system.
    """
    try:
        inbox = settings(CsvSettings)
    except NotSet as error:
        return dg.SensorResult(skip_reason=str(error))
    now, snapshot, memory = datetime.now(UTC), look(inbox), Memory.of(context.cursor)
    events: list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
    records = context.instance.get_run_records
    runs = Runs.of(
        records(dg.RunsFilter(job_name=csv_take.name), limit=MOST_DOUBLINGS + 1),
        records(dg.RunsFilter(job_name=csv_retract.name), limit=1),
    )
    is_old = snapshot.is_old(runs, now)
    checks = [evaluation(snapshot.check(now))] if is_old != memory.is_old else []
    if snapshot.unrecognised_digest != memory.unrecognised:
        checks.append(evaluation(snapshot.names_check()))
    if checks:
        memory = memory.reported(is_old, snapshot.unrecognised_digest)
        events += checks
        emit_checks(server_emitter(), csv_inbox.name, checks)
    reason = reason_to_wait(snapshot, runs, memory, timedelta(seconds=inbox.csv_every_seconds), now)
    if reason is not None:
        if snapshot.unrecognised:
            reason += f"; {snapshot.names_check().description}"
        return dg.SensorResult(skip_reason=reason, asset_events=events, cursor=memory.cursor)
    events.append(snapshot.observation(now))
    return dg.SensorResult([dg.RunRequest()], asset_events=events, cursor=memory.requested(snapshot).cursor)


class WrongFile(dg.Config):
    """Which file is retracted."""

    file: str = Field(
        min_length=1, description="The name that it was taken under, its SHA-256, or a path to its content."
    )


@dg.op(pool=POOL, retry_policy=RETRIES)
def retract_file(context: dg.OpExecutionContext, config: WrongFile) -> None:
    """Reverses the sales of the file that still count; those corrected since are left."""
    from sources.csv.retract import retract

    progress = ProgressCell()
    with as_dagster_failure(), emitted(context, lineage_of.retraction, progress):
        done = retract(
            settings(KafkaSettings),
            settings(ResultsDbSettings),
            settings(CsvSettings),
            config.file,
            on_progress=progress.set,
        )
    context.log_event(dg.AssetObservation(SALES, metadata=metadata.retracted(done)))


@dg.job(executor_def=dg.in_process_executor, description="Takes a wrong file back, by reversals.")
def csv_retract() -> None:
    retract_file()
