"""What must hold over all sources at once."""
# No postponed annotations here: Dagster refuses a check whose context's type is text.

from collections.abc import Mapping

import dagster as dg

from contracts import datasets
from contracts.datasets import PIPELINES
from contracts.topics import SALES_EVENTS, Topic
from electrored_dagster.asset_specs import key
from electrored_dagster.defs.instance import Platform
from electrored_dagster.observations import (
    DUPLICATES_CHECK,
    FUTURE_CHECK,
    LOGS,
    OVERLAP_CHECK,
    RULES_CHECK,
    duplicates,
    duplicates_result,
    future_result,
    overlap_result,
    rules_result,
)
from observer.platform_status import future, overlap


@dg.asset_check(
    name=OVERLAP_CHECK,
    asset=key(datasets.topic(SALES_EVENTS)),
    description="A sale belongs to one source. The join of sales and payments has every id of the log and marks "
    "those that are in several sources; watched once a minute, and reported when their number changes.",
)
def sale_ids_in_both_sources(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    return overlap_result(platform.ask(overlap))


def _no_event_is_dropped(log: Topic) -> dg.AssetChecksDefinition:
    asset = key(datasets.topic(log))

    @dg.asset_check(
        name=DUPLICATES_CHECK,
        asset=asset,
        description="No pipeline drops an event as a duplicate: no source gives a seq twice, so what is dropped is "
        "lost, or another producer writes to the log. Watched once a minute, and reported when the number grows. Run "
        "by hand it compares with the last report: that is how a count that was looked into is put aside.",
    )
    def no_event_is_dropped(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.AssetCheckResult:
        before = _last_reported(context.instance, dg.AssetCheckKey(asset, DUPLICATES_CHECK))
        return duplicates_result(log, duplicates(platform.standing(), log), before)

    return no_event_is_dropped


def _last_reported(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> Mapping[str, int]:
    """What was dropped when the check was evaluated last."""
    history = instance.event_log_storage.get_asset_check_execution_history(check, limit=10)
    for record in history:
        event = record.event.dagster_event if record.event is not None else None
        if event is not None and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            dropped: dict[str, int] = event.asset_check_evaluation_data.metadata["dropped"].value  # type: ignore[assignment]
            return dropped
    return {}


@dg.asset_check(
    name=FUTURE_CHECK,
    asset=key(datasets.topic(SALES_EVENTS)),
    description="No sale is dated more than an hour from now. One that is counts in its window, which no answer shows "
    "unless it is asked for; watched once a minute, and reported when their number changes.",
)
def sales_in_the_future(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    return future_result(platform.ask(future))


def _rules_check(pipeline: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name=RULES_CHECK,
        asset=key(datasets.view(pipeline)),
        description="The time zone of the active generation has the rules that it was created with. If a government "
        "changed them, a replay that names the zone takes over the new ones. Watched once a minute.",
    )
    def zone_rules_are_current(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
        return rules_result(pipeline, platform.standing().pipelines[pipeline])

    return zone_rules_are_current


@dg.definitions
def checks() -> dg.Definitions:
    dropped = [_no_event_is_dropped(log) for log in LOGS]
    rules = [_rules_check(pipeline) for pipeline in PIPELINES]
    return dg.Definitions(asset_checks=[sale_ids_in_both_sources, sales_in_the_future, *dropped, *rules])
