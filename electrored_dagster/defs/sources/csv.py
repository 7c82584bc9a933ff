"""Files of sales: looked for every five seconds, taken by one run at a time, taken back when asked."""
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
from electrored_dagster.metadata import NotSet, own_words, settings
from electrored_dagster.openlineage import emitted, of_server, tell_checks
from lineage.emitter import ProgressCell
from sources import lineage as lineage_of

SALES = key(datasets.CSV_SALES)
# Taking and taking back never run at once; the source itself would refuse the second.
POOL = "csv"
# A short absence of Kafka or the database is waited for within the run; a longer one is the sensor's, which backs off.
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
            description="Files of one modification time say the same of a sale: which of them is newer, nobody knows.",
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

    saying = ProgressCell()
    with own_words(), emitted(context, lineage_of.csv, saying):
        inbox = settings(CsvSettings)
        taking = take(settings(KafkaSettings), settings(ResultsDbSettings), inbox, say=saying.say)
    now = datetime.now(UTC)
    for file in taking.files:
        context.log.info("%s: %s %s", file.name, file.outcome, file.reason)
    found = look(inbox)
    context.log_event(found.observation(now))
    checks = [
        metadata.reject_rate(taking),
        metadata.files_agree(taking),
        found.check(now),
        found.names_check(),
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
    """Looks at the inbox and starts a run when something waits. Also when the last run was cut off.

    A look reads no file and asks nobody else.
    """
    try:
        inbox = settings(CsvSettings)
    except NotSet as error:
        return dg.SensorResult(skip_reason=str(error))
    now, found, memory = datetime.now(UTC), look(inbox), Memory.of(context.cursor)
    events: list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
    records = context.instance.get_run_records
    runs = Runs.of(
        records(dg.RunsFilter(job_name=csv_take.name), limit=MOST_DOUBLINGS + 1),
        records(dg.RunsFilter(job_name=csv_retract.name), limit=1),
    )
    is_old = found.is_old(runs, now)
    checks = [evaluation(found.check(now))] if is_old != memory.is_old else []
    if found.strangers != memory.unrecognised:
        checks.append(evaluation(found.names_check()))
    if checks:
        memory = memory.open_emitter(is_old, found.strangers)
        events += checks
        tell_checks(of_server(), csv_inbox.name, checks)
    reason = reason_to_wait(found, runs, memory, timedelta(seconds=inbox.csv_every_seconds), now)
    if reason is not None:
        if found.unrecognised:
            reason += f"; {found.names_check().description}"
        return dg.SensorResult(skip_reason=reason, asset_events=events, cursor=memory.cursor)
    events.append(found.observation(now))
    return dg.SensorResult([dg.RunRequest()], asset_events=events, cursor=memory.asking(found).cursor)


class WrongFile(dg.Config):
    """Which file is taken back."""

    file: str = Field(
        min_length=1, description="The name that it was taken under, its SHA-256, or a path to its content."
    )


@dg.op(pool=POOL, retry_policy=RETRIES)
def retract_file(context: dg.OpExecutionContext, config: WrongFile) -> None:
    """Reverses what the file said and still counts; what was corrected since is left."""
    from sources.csv.retract import retract

    saying = ProgressCell()
    with own_words(), emitted(context, lineage_of.retraction, saying):
        done = retract(
            settings(KafkaSettings),
            settings(ResultsDbSettings),
            settings(CsvSettings),
            config.file,
            say=saying.say,
        )
    context.log_event(dg.AssetObservation(SALES, metadata=metadata.retracted(done)))


@dg.job(executor_def=dg.in_process_executor, description="Takes a wrong file back, by reversals.")
def csv_retract() -> None:
    retract_file()
