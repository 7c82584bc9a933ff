"""Who sold the most in each country? Sum and count per salesman in windows of 30 days; ranked when read."""

from __future__ import annotations

from dataclasses import replace

from contracts.topics import SALES_EVENTS, TOP_SALESMAN_BY_COUNTRY
from streaming.engine.aggregates import ArgMax, Count, LateStats, Sum, text, timestamp, whole
from streaming.engine.pipeline import Input, Pipeline
from streaming.pipelines.sale_events import CHECKS, CHECKS_V1, EVENTS, NORMAL, SOURCES

AGGREGATES = (
    ArgMax(text("salesman_name"), (timestamp("sold_at"), text("sale_id"), whole("seq")), prefix="name"),
    Sum("total", "amount"),
    Count("sales_count"),
    LateStats("amount", "recorded_at"),
)

V1 = Pipeline(
    name="top-salesman-by-country",
    version=1,
    inputs=(Input(SALES_EVENTS, SOURCES, EVENTS, CHECKS_V1, AGGREGATES),),
    output=TOP_SALESMAN_BY_COUNTRY,
    table="salesman_totals",
    group_by=("country", "salesman_id", "currency"),
    calendar="30-days",
)
# Groups by texts in their normal form.
V2 = replace(V1, version=2, inputs=(Input(SALES_EVENTS, SOURCES, EVENTS, CHECKS, AGGREGATES, NORMAL),))
VERSIONS = (V1, V2)
