"""What the views' own SQL says of where their columns come from."""

from __future__ import annotations

from contracts.datasets import PIPELINES, view_name
from contracts.views import AS_IS, CONDITION, FILTERED, JOINED, WINDOW, Source, views


def test_every_pipeline_has_a_view() -> None:
    assert {view_name(pipeline) for pipeline in PIPELINES} <= set(views())


def test_a_total_is_shown_as_it_is_and_ranked_by() -> None:
    view = views()["top_sales_by_city"]
    assert view.columns["total"] == (Source("city_totals", "total", AS_IS),)
    assert Source("city_totals", "total", WINDOW) in view.columns["rank"]
    assert Source("city_totals", "sales_count", FILTERED) in view.rows
    assert Source("active_freshness", "generation", JOINED) in view.rows


def test_what_a_status_depends_on_is_a_condition() -> None:
    assert Source("active_freshness", "watermark", CONDITION) in views()["enriched_sales"].columns["status"]
