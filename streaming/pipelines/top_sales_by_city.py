"""Which cities sold the most today? Sum and count per country, city and currency in windows of one civil day."""

from __future__ import annotations

from contracts.topics import SALES_EVENTS, TOP_SALES_BY_CITY
from streaming.engine.aggregates import Count, Late, Sum
from streaming.engine.pipeline import Input, Pipeline
from streaming.pipelines.sale_events import CHECKS, EVENTS, SOURCES

AGGREGATES = (Sum("total", "amount"), Count("sales_count"), Late("amount", "recorded_at"))

V1 = Pipeline(
    name="top-sales-by-city",
    version=1,
    inputs=(Input(SALES_EVENTS, SOURCES, EVENTS, CHECKS, AGGREGATES),),
    output=TOP_SALES_BY_CITY,
    table="city_totals",
    group_by=("country", "city", "currency"),
    calendar="1-day",
)
