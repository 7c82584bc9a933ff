"""A column's lineage, from events of jobs."""

from __future__ import annotations

import time

import pytest

from contracts.datasets import view_names
from contracts.topics import TOP_SALES_BY_CITY
from lineage.emitter import START
from lineage.graph import Direction, Graph, Place
from observability.progress_report import ProgressReport
from streaming import lineage as of_streaming
from streaming.pipelines import PIPELINES
from tests.support.lineage_client import ends
from tests.support.lineage_events import JOBS, run_event

GRAPH = Graph.of({"name": job.name, **run_event(job, START, ProgressReport())} for job in JOBS)
SOURCES = {("sales.public.sales", "amount"), ("/data/inbox", "amount")}


def traced(text: str, direction: Direction) -> set[tuple[str, str | None]]:
    (place,) = GRAPH.find(text)
    return set(ends(GRAPH.trace(place, direction)))


@pytest.mark.parametrize("view", ["top_sales_by_city.total", "top_salesman_by_country.total"])
def test_a_total_comes_from_the_amounts_of_table_and_files(view: str) -> None:
    assert traced(view, "upstream") == SOURCES


@pytest.mark.parametrize("source", ["public.sales.amount", "inbox.amount"])
def test_an_amount_is_in_every_answer(source: str) -> None:
    found = traced(source, "downstream")
    assert {("results.public.top_sales_by_city", "total"), ("top-sales-by-city", "total")} <= found
    assert {("results.public.enriched_sales", "amount"), ("enriched-sales", "sales.amount")} <= found
    assert ("results.public.enriched_sales", "status") in found


def test_what_a_status_comes_from_are_both_logs() -> None:
    found = traced("enriched_sales.status", "upstream")
    assert {("sales.public.sales", "amount"), ("payments", "amount"), ("payments", "status")} <= found


def test_what_only_decides_ends_a_way() -> None:
    (place,) = GRAPH.find("top_sales_by_city.rank")
    steps = GRAPH.trace(place, "upstream")["next"]
    assert {one["column"] for one in steps} >= {"total", "country", "city"}
    assert all(one["next"] == [] for one in steps)


def test_datasets_have_ways_of_their_own() -> None:
    (place,) = GRAPH.find("top_sales_by_city")
    assert place.column is None
    assert {name for name, _ in traced("top_sales_by_city", "upstream")} >= {
        "sales.public.sales",
        "/data/inbox",
    }


def test_a_name_is_found_by_its_end_and_a_nested_column_by_its_dots() -> None:
    assert GRAPH.find("enriched-sales.sales.amount") == [
        Place("kafka://broker-1:9092", "enriched-sales", "sales.amount")
    ]
    assert GRAPH.find("kafka://broker-1:9092/sales-events") == [
        Place("kafka://broker-1:9092", "sales-events")
    ]
    assert GRAPH.find("sales-events", "nothing") == []
    assert GRAPH.find("nothing") == []


def test_a_way_in_a_circle_ends() -> None:
    def job(name: str, source: str, target: str) -> dict[str, object]:
        made = {"namespace": "n", "name": source, "field": "c", "transformations": []}
        facet = {"columnLineage": {"fields": {"c": {"inputFields": [made]}}}}
        return {
            "name": name,
            "inputs": [{"namespace": "n", "name": source}],
            "outputs": [{"namespace": "n", "name": target, "facets": facet}],
        }

    graph = Graph.of([job("there", "a", "b"), job("back", "b", "a")])
    step = graph.trace(Place("n", "a", "c"), "upstream")
    assert [one["name"] for one in step["next"]] == ["b"]
    assert step["next"][0]["next"] == []


def test_three_generations_are_answered_in_a_moment() -> None:
    """Two are usual for days after each promotion; the API has no second to spare for it."""
    works = (of_streaming.worker, of_streaming.sink, of_streaming.publisher)
    jobs = [make(pipeline, number) for pipeline in PIPELINES.values() for make in works for number in (2, 3)]
    graph = Graph.of({"name": job.name, **run_event(job, START, ProgressReport())} for job in (*JOBS, *jobs))
    (place,) = graph.find("public.sales")
    began = time.process_time()
    step = graph.trace(place, "downstream")
    assert time.process_time() - began < 0.5, "it was 2.7 s when each step looked at every edge"
    assert ("top-sales-by-city", None) in set(ends(step))


@pytest.mark.parametrize(
    "output",
    [
        {"namespace": "n"},
        {
            "namespace": "n",
            "name": "x",
            "facets": {"columnLineage": {"fields": {"c": {"inputFields": [None]}}}},
        },
        {"namespace": "n", "name": "x", "facets": {"columnLineage": {"fields": {"c": {}}}}},
        {"namespace": "n", "name": "x", "facets": {"columnLineage": {"fields": ["c"]}}},
        "x",
    ],
)
def test_what_others_tell_in_a_shape_of_their_own_takes_no_way_away(output: object) -> None:
    known = ({"name": job.name, **run_event(job, START, ProgressReport())} for job in JOBS)
    graph = Graph.of([{"name": "odd", "inputs": [], "outputs": [output]}, *known])
    (place,) = graph.find("top_sales_by_city.total")
    assert set(ends(graph.trace(place, "upstream"))) == SOURCES


def test_nulls_where_the_spec_has_something_optional_are_nothing() -> None:
    made = {"namespace": "n", "name": "a", "field": "c"}
    told_null = {"type": "DIRECT", "subtype": None, "description": None}
    facet = {"columnLineage": {"fields": {"c": {"inputFields": [made | {"transformations": [told_null]}]}}}}
    graph = Graph.of(
        [
            {
                "name": "odd",
                "inputs": [{"namespace": "n", "name": "a", "facets": None}],
                "outputs": [{"namespace": "n", "name": "b", "facets": facet}],
            }
        ]
    )
    (step,) = graph.trace(Place("n", "b", "c"), "upstream")["next"]
    assert step["transformations"] == [{"type": "DIRECT", "subtype": "", "description": ""}]


def test_the_worker_of_a_pipeline_is_named_by_its_generation() -> None:
    assert any(job.name == f"{TOP_SALES_BY_CITY.name}.g1" for job in JOBS)
    assert len(JOBS) == 4 + len(view_names()) + 3 * len(PIPELINES)
