"""What must hold over all sources at once."""

from __future__ import annotations

import dagster as dg

from contracts import datasets
from contracts.topics import SALES_EVENTS
from electrored_dagster.defs.instance import Platform
from electrored_dagster.graph import key
from electrored_dagster.observations import OVERLAP_CHECK, overlap_result


@dg.asset_check(
    name=OVERLAP_CHECK,
    asset=key(datasets.topic(SALES_EVENTS)),
    description="A sale belongs to one source. The join of sales and payments knows every id of the log and marks "
    "those that several sources have; watched once a minute, and told when their number changes.",
)
def sale_ids_in_both_sources(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    return overlap_result(platform.overlap())
