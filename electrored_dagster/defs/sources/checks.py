"""What must hold over all sources at once."""

from __future__ import annotations

import dagster as dg

from contracts import datasets
from contracts.datasets import PIPELINES
from contracts.topics import SALES_EVENTS
from electrored_dagster.defs.instance import Platform
from electrored_dagster.graph import key
from electrored_dagster.observations import (
    FUTURE_CHECK,
    OVERLAP_CHECK,
    RULES_CHECK,
    future_result,
    overlap_result,
    rules_result,
)


@dg.asset_check(
    name=OVERLAP_CHECK,
    asset=key(datasets.topic(SALES_EVENTS)),
    description="A sale belongs to one source. The join of sales and payments knows every id of the log and marks "
    "those that several sources have; watched once a minute, and told when their number changes.",
)
def sale_ids_in_both_sources(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    return overlap_result(platform.overlap())


@dg.asset_check(
    name=FUTURE_CHECK,
    asset=key(datasets.topic(SALES_EVENTS)),
    description="No sale is dated more than an hour from now. One that is counts in its window, which no answer shows "
    "unless it is asked for; watched once a minute, and told when their number changes.",
)
def sales_in_the_future(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    return future_result(platform.future())


def _rules_check(pipeline: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name=RULES_CHECK,
        asset=key(datasets.view(pipeline)),
        description="The time zone of the active generation has the rules that it was made with. If a government "
        "changed them, a replay that names the zone takes over the new ones. Watched once a minute.",
    )
    def zone_rules_are_current(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
        return rules_result(pipeline, platform.standing().pipelines[pipeline])

    return zone_rules_are_current


@dg.definitions
def checks() -> dg.Definitions:
    rules = [_rules_check(pipeline) for pipeline in PIPELINES]
    return dg.Definitions(asset_checks=[sale_ids_in_both_sources, sales_in_the_future, *rules])
