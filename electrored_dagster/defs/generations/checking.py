"""`replay_is_identical`: a replay from the log gives the same results.

A replay with the active generation's version and parameters, compared at one position of the log, then retired. It
compares every window: a replay reads the whole log anyway.
"""
# No postponed annotations here: Dagster refuses an op whose context's type is text.

from collections.abc import Sequence
from functools import partial
from typing import Any

import dagster as dg

from contracts import datasets
from contracts.datasets import PIPELINES
from electrored_dagster import differences, generations
from electrored_dagster.asset_specs import key
from electrored_dagster.defs.generations.replaying import POOL
from electrored_dagster.defs.instance import Platform
from electrored_dagster.generations import connected
from electrored_dagster.metadata import as_dagster_failure
from electrored_dagster.openlineage import emitted

NAME = "replay_is_identical"


def _check(pipeline: str) -> dg.AssetChecksDefinition:
    # One step, so that its slices run one after the other in one process: it is not urgent.
    @dg.asset_check(
        asset=key(datasets.view(pipeline)),
        name=NAME,
        pool=POOL,
        description="A replay with unchanged version and parameters differs in nothing, in any window.",
    )
    def identical(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with as_dagster_failure(), connected() as (kafka, results, replay):
            difference = generations.replay_and_diff(
                kafka, results, replay, pipeline, NAME, context.log.info, partial(emitted, context)
            )
            metadata: dict[str, Any] = differences.described(results, difference)
            # The replay is retired by now: there is nothing to promote.
            metadata.pop("promote", None)
            return dg.AssetCheckResult(
                passed=difference.is_empty,
                description=differences.summary(difference).replace("**", ""),
                metadata=metadata,
            )

    return identical


CHECKS = {pipeline: _check(pipeline) for pipeline in PIPELINES}


def _keys(pipelines: Sequence[str]) -> list[dg.AssetCheckKey]:
    return [dg.AssetCheckKey(key(datasets.view(pipeline)), NAME) for pipeline in pipelines]


check_replays = dg.define_asset_job(
    "check_replays",
    selection=dg.AssetSelection.checks(*CHECKS.values()),
    executor_def=dg.in_process_executor,
    description="Computes every pipeline again and compares: nothing may differ.",
)


@dg.schedule(job=check_replays, cron_schedule="10 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def check_replays_nightly(platform: dg.ResourceParam[Platform]) -> dg.RunRequest | dg.SkipReason:
    """Checks the pipelines without a replay that is building or waits for promotion."""
    busy = platform.replaying(but=NAME)
    free = [pipeline for pipeline in PIPELINES if pipeline not in busy]
    if not free:
        return dg.SkipReason(f"replays are under way, or wait to be promoted or retired: {', '.join(busy)}")
    return dg.RunRequest(asset_check_keys=_keys(free))


@dg.definitions
def checking() -> dg.Definitions:
    return dg.Definitions(
        asset_checks=list(CHECKS.values()), jobs=[check_replays], schedules=[check_replays_nightly]
    )
