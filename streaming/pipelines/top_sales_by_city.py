"""Which cities sold the most today? Sum and count per country, city and currency in windows of one civil day."""

from __future__ import annotations

from dataclasses import replace

from contracts.topics import SALES_EVENTS, TOP_SALES_BY_CITY
from streaming.engine.aggregates import Count, LateStats, Sum
from streaming.engine.pipeline import Input, Pipeline
from streaming.pipelines.sale_events import CHECKS, CHECKS_V1, EVENTS, NORMAL, SOURCES

AGGREGATES = (Sum("total", "amount"), Count("sales_count"), LateStats("amount", "recorded_at"))

V1 = Pipeline(
    name="top-sales-by-city",
    version=1,
    inputs=(Input(SALES_EVENTS, SOURCES, EVENTS, CHECKS_V1, AGGREGATES),),
    output=TOP_SALES_BY_CITY,
    table="city_totals",
    group_by=("country", "city", "currency"),
    calendar="1-day",
)
# Groups by texts in their normal form.
V2 = replace(V1, version=2, inputs=(Input(SALES_EVENTS, SOURCES, EVENTS, CHECKS, AGGREGATES, NORMAL),))
VERSIONS = (V1, V2)
