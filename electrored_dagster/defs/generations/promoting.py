"""Promotion, rollback and retirement of generations."""
# No postponed annotations here: Dagster refuses an op whose context's type is text.

import dagster as dg
from pydantic import Field
from sqlalchemy import Engine

from contracts.settings import KafkaSettings
from electrored_dagster.generations import connected
from electrored_dagster.metadata import as_dagster_failure


class Promotion(dg.Config):
    """The difference that was reviewed, and who approves it."""

    pipeline: str
    generation: int
    fingerprint: str = Field(description="Of the difference that was reviewed: the replay's run shows it")
    approved_by: str = Field(description="Who decides it")


class Rollback(dg.Config):
    """Back to the standby, the generation that was active before."""

    pipeline: str
    reason: str = Field(description="Kept with the generation that is left")
    approved_by: str = Field(description="Who decides it")
    generation: int | None = Field(
        default=None, description="The standby's number, so that asking twice does not go back and forth"
    )


class Retirement(dg.Config):
    """The generation to delete, with its rows, topics and positions. Only a replay brings it back."""

    pipeline: str
    generation: int


@dg.op
def promote_generation(context: dg.OpExecutionContext, config: Promotion) -> None:
    """Makes the generation active."""
    with as_dagster_failure(), connected() as (kafka, results, _):
        from streaming.replay import promotion
        from streaming.replay.barrier import hold_at_barrier
        from streaming.replay.errors import RequestRefused

        if not config.approved_by.strip():
            raise RequestRefused("a promotion needs the name of who approves it: `approved_by` is empty")
        done = promotion.promote(
            kafka,
            results,
            config.pipeline,
            config.generation,
            fingerprint=config.fingerprint,
            approved_by=config.approved_by,
            hold=hold_at_barrier,
        )
        _finish(context, kafka, results, done.pipeline, done.generation, done.former, done.replaced)


@dg.op
def roll_back(context: dg.OpExecutionContext, config: Rollback) -> None:
    """Makes the standby active again."""
    with as_dagster_failure(), connected() as (kafka, results, _):
        from streaming.replay import promotion
        from streaming.replay.barrier import hold_at_barrier
        from streaming.replay.errors import RequestRefused

        if not config.approved_by.strip():
            raise RequestRefused("a rollback needs the name of who approves it: `approved_by` is empty")
        done = promotion.rollback(
            kafka,
            results,
            config.pipeline,
            config.generation,
            reason=config.reason,
            approved_by=config.approved_by,
            hold=hold_at_barrier,
        )
        _finish(context, kafka, results, done.pipeline, done.generation, done.former, done.replaced)


def _finish(
    context: dg.OpExecutionContext,
    kafka: KafkaSettings,
    results: Engine,
    pipeline: str,
    number: int,
    former: int,
    replaced: tuple[int, ...],
) -> None:
    from streaming.replay import retirement

    context.log.info("%s g%d is active; g%d is standby", pipeline, number, former)
    for other in replaced:
        retirement.retire(kafka, results, pipeline, other)
        context.log.info("%s g%d, the former standby, is retired", pipeline, other)
    context.add_output_metadata({"active": number, "standby": former, "retired": list(replaced)})


@dg.op
def retire_generation(context: dg.OpExecutionContext, config: Retirement) -> None:
    """Retires a generation."""
    with as_dagster_failure(), connected() as (kafka, results, _):
        from streaming.replay import retirement

        done = retirement.retire(kafka, results, config.pipeline, config.generation)
        context.add_output_metadata({"rows": done.rows, "topics": done.topics})


@dg.op(pool="upkeep")
def retire_standbys(context: dg.OpExecutionContext) -> None:
    """Retires generations that have been standby for seven days, and completes interrupted retirements."""
    with as_dagster_failure(), connected() as (kafka, results, _):
        from streaming.replay import retirement

        done = retirement.retire_old_standbys(kafka, results)
        gone = [f"{one.pipeline} g{one.generation}" for one in done]
        context.add_output_metadata({"retired": gone})


# One step each: a process of its own would be most of what they cost.
IN_PROCESS = dg.in_process_executor


@dg.job(
    executor_def=IN_PROCESS,
    description="Serves a generation: the API at once, the public topic within seconds. Refused if the "
    "fingerprint is not that of its newest difference, or anything differs outside of its range.",
)
def promote() -> None:
    promote_generation()


@dg.job(executor_def=IN_PROCESS, description="Shows the generation again that was shown before.")
def rollback() -> None:
    roll_back()


@dg.job(executor_def=IN_PROCESS, description="Takes a generation away for good; never the one that is shown.")
def retire() -> None:
    retire_generation()


@dg.job(executor_def=IN_PROCESS, description="Takes old standbys away.")
def retire_old_standbys() -> None:
    retire_standbys()


@dg.definitions
def promoting() -> dg.Definitions:
    return dg.Definitions(
        jobs=[promote, rollback, retire, retire_old_standbys],
        schedules=[
            dg.ScheduleDefinition(
                name="retire_old_standbys_nightly",
                job=retire_old_standbys,
                cron_schedule="50 2 * * *",
                default_status=dg.DefaultScheduleStatus.RUNNING,
            )
        ],
    )
