"""The pipelines, each the answer to one question, in every version that a live generation may be pinned to."""

from __future__ import annotations

from streaming.engine.pipeline import Pipeline
from streaming.pipelines import enriched_sales, top_sales_by_city, top_salesman_by_country

PIPELINES: dict[tuple[str, int], Pipeline] = {
    (pipeline.name, pipeline.version): pipeline
    for module in (top_sales_by_city, top_salesman_by_country, enriched_sales)
    for pipeline in module.VERSIONS
}
# The version that a new generation is pinned to.
CURRENT: dict[str, int] = {name: max(v for n, v in PIPELINES if n == name) for name, _ in PIPELINES}
