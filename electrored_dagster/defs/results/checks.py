"""What must hold of every answer."""

from __future__ import annotations

import dagster as dg

from contracts import datasets
from electrored_dagster.asset_specs import key
from electrored_dagster.defs.instance import Platform
from electrored_dagster.observations import NEGATIVE_CHECK, negative_result
from observer.platform_status import negative_groups


@dg.definitions
def checks() -> dg.Definitions:
    return dg.Definitions(asset_checks=[_no_negative_groups(pipeline) for pipeline in datasets.PIPELINES])


def _no_negative_groups(pipeline: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        name=NEGATIVE_CHECK,
        asset=key(datasets.view(pipeline)),
        description="More cannot be taken back than was sold: a count below 0 is the sign of a source whose log is not "
        "whole. Watched once a minute, and reported when the number of such groups changes.",
    )
    def no_negative_groups(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
        return negative_result(pipeline, platform.ask(negative_groups)[pipeline])

    return no_negative_groups
