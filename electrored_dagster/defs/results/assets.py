"""The answers: views of the results database that show the active generation."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from contracts import datasets
from contracts.topics import ENRICHED_SALES, TOP_SALES_BY_CITY, TOP_SALESMAN_BY_COUNTRY
from electrored_dagster.asset_specs import described
from electrored_dagster.column_lineage import came_from

GROUP = "results"
# The watermark moves every second, sales or none, and the sensor reports it every ten minutes at least:
# three reports that did not come mean that something between the source and the view stands still.
FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(minutes=30), warn_window=timedelta(minutes=15))

QUESTIONS = {
    TOP_SALES_BY_CITY.name: "Which cities sold the most? Totals per civil day, city and currency, ranked.",
    TOP_SALESMAN_BY_COUNTRY.name: "Who sold the most in each country? Totals per window, ranked.",
    ENRICHED_SALES.name: "Which sales are paid? Each sale with its payments and its status.",
}


@dg.definitions
def assets() -> dg.Definitions:
    return dg.Definitions(
        assets=[
            described(
                datasets.view(pipeline),
                group=GROUP,
                kinds={"postgres", "view"},
                deps=[datasets.internal(pipeline, "state")],
                description=question,
                metadata=came_from(datasets.view(pipeline)),
                freshness=FRESH,
            )
            for pipeline, question in QUESTIONS.items()
        ]
    )
