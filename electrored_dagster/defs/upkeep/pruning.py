"""Every night: deletes old runs and events of Dagster's."""
# No postponed annotations here: Dagster refuses an op whose context's type is text.

from datetime import UTC, datetime

import dagster as dg

from electrored_dagster.pruning import prune


@dg.op(pool="upkeep")
def prune_events(context: dg.OpExecutionContext) -> None:
    """Deletes old finished runs and old events that belong to no run."""
    pruned = prune(context.instance, datetime.now(UTC))
    context.log.info("pruned %d runs and %d events", pruned.runs, pruned.events)
    context.add_output_metadata({"runs": pruned.runs, "events": pruned.events})


@dg.job(
    executor_def=dg.in_process_executor, description="Deletes old runs and events from Dagster's database."
)
def prune_history() -> None:
    prune_events()


prune_nightly = dg.ScheduleDefinition(
    name="prune_nightly",
    job=prune_history,
    # After midnight in UTC, when the day's windows close an hour late; before working hours.
    cron_schedule="40 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
