"""Where each column of a pipeline comes from, derived from its value."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from contracts import datasets
from contracts.schemas import load
from contracts.tables import metadata
from contracts.topics import (
    DEAD_LETTERS,
    ENRICHED_SALES,
    LATE_EVENTS,
    TOP_SALES_BY_CITY,
    TOP_SALESMAN_BY_COUNTRY,
)
from lineage.model import OutputDataset, Transformation
from lineage.views import views
from streaming import lineage, view_columns
from streaming.engine.aggregates import Sum
from streaming.engine.pipeline import Pipeline
from streaming.pipelines import PIPELINES

IDENTITY, AGGREGATION, TRANSFORMATION = "identity", "aggregation", "transformation"
Expected = dict[str, list[tuple[str, str]]]


def each(names: str, kind: str, prefix: str = "") -> Expected:
    return {f"{prefix}{name}": [(name, kind)] for name in names.split()}


# Column of the state: where it comes from in the log, and how, directly.
WINDOW: Expected = {name: [("sold_at", TRANSFORMATION)] for name in ("window_start", "window_end")}
SUMS: Expected = {
    "total": [("amount", AGGREGATION)],
    "sales_count": [("operation", AGGREGATION)],
    "late_count": [("operation", AGGREGATION)],
    "late_amount": [("amount", AGGREGATION)],
    "restated_at": [("recorded_at", AGGREGATION)],
}
SHOWN = "quantity amount seq sold_at country city salesman_id salesman_name product"
EXPECTED = {
    TOP_SALES_BY_CITY.name: WINDOW | SUMS | each("country currency city", IDENTITY),
    TOP_SALESMAN_BY_COUNTRY.name: WINDOW
    | SUMS
    | each("country currency salesman_id", IDENTITY)
    | each("salesman_name", AGGREGATION)
    | each("sold_at sale_id seq", AGGREGATION, "name_"),
    ENRICHED_SALES.name: {"sale_id": [("sale_id", IDENTITY)] * 2}
    | each("source currency", IDENTITY, "sales.")
    | {"sales.sales_count": [("operation", AGGREGATION)]}
    | each(SHOWN, AGGREGATION, "sales.")
    | each("payment_id", IDENTITY, "payments.")
    | each("confirmed_at seq source amount currency status", AGGREGATION, "payments."),
}
pipelines = pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=lambda found: found.name)


def partials(pipeline: Pipeline) -> OutputDataset:
    inputs = [datasets.topic(found.source) for found in pipeline.inputs]
    return lineage.combined(pipeline, datasets.internal(pipeline.name, "partials"), inputs)


@pipelines
def test_partials_come_from_the_log(pipeline: Pipeline) -> None:
    direct = {
        column: [(one.column, one.kind.value[1].lower()) for one in origins if one.kind.value[0] == "DIRECT"]
        for column, origins in partials(pipeline).columns.items()
    }
    assert direct == EXPECTED[pipeline.name]


@pipelines
def test_what_decides_is_an_origin_of_the_whole(pipeline: Pipeline) -> None:
    whole = {(one.column, one.kind) for one in partials(pipeline).whole}
    grouping = Transformation.JOIN if len(pipeline.inputs) > 1 else Transformation.GROUP_BY
    assert {(name, grouping) for name in pipeline.group_by} <= whole
    assert {(name, Transformation.FILTER) for name in ("source", "seq", "currency", "amount")} <= whole
    assert (("sold_at", Transformation.WINDOW) in whole) == (pipeline.calendar is not None)


def test_merge_takes_the_newest_name_by_what_orders_names() -> None:
    pipeline = PIPELINES[TOP_SALESMAN_BY_COUNTRY.name, 1]
    made = lineage.merged(pipeline, partials(pipeline).dataset, datasets.internal(pipeline.name, "state"))
    orders = ("name_sold_at", "name_sale_id", "name_seq")
    order = {(name, Transformation.SORT) for name in orders}
    for name in ("salesman_name", *orders):
        assert {(one.column, one.kind) for one in made.columns[name]} == {
            (name, Transformation.AGGREGATION)
        } | order
    for name, kind in (("total", Transformation.AGGREGATION), ("country", Transformation.IDENTITY)):
        assert [(one.column, one.kind) for one in made.columns[name]] == [(name, kind)]


@pytest.mark.parametrize("hop", ["combine", "merge"])
def test_an_item_s_facts_are_grouped_by_the_item_and_ordered(hop: str) -> None:
    pipeline = PIPELINES[ENRICHED_SALES.name, 1]
    made, before = partials(pipeline), ""
    if hop == "merge":
        made = lineage.merged(pipeline, made.dataset, datasets.internal(pipeline.name, "state"))
        before = "sales."
    of = {name: {(one.column, one.kind) for one in found} for name, found in made.columns.items()}
    groups = {(f"{before}{name}", Transformation.GROUP_BY) for name in ("source", "currency")}
    assert of["sales.source"] == {(f"{before}source", Transformation.IDENTITY)}
    assert of["sales.amount"] == {(f"{before}amount", Transformation.AGGREGATION)} | groups
    latest = {(f"{before}city", Transformation.AGGREGATION), (f"{before}seq", Transformation.SORT)} | groups
    assert of["sales.city"] == latest


@pipelines
def test_a_group_without_a_fact_that_stands_is_not_published(pipeline: Pipeline) -> None:
    made = lineage.published(pipeline, datasets.internal(pipeline.name, "state"))
    (name,) = [one.column for one in made.whole]
    assert {one.kind for one in made.whole} == {Transformation.FILTER}
    if pipeline.name == ENRICHED_SALES.name:
        assert name == "sales.sales_count"
        gone = TOTAL | {"sales": [("k", SALE | {"sales_count": 0})]}
        assert pipeline.public(gone) is None
        assert pipeline.public(TOTAL) is not None
    else:
        assert pipeline.public({name: 0}) is None
        assert pipeline.public({name: 1}) is not None


@pytest.mark.parametrize("later", list(Transformation))
@pytest.mark.parametrize("earlier", list(Transformation))
def test_two_transformations_come_to_those_of_the_specification_s_own_integrations(
    earlier: Transformation, later: Transformation
) -> None:
    found = view_columns._through(later, earlier)
    kinds: dict[Transformation, str] = {one: one.value[0] for one in Transformation}
    indirect = [one for one in (later, earlier) if kinds[one] == "INDIRECT"]
    if indirect:
        assert found == indirect[0]
    else:
        direct = [Transformation.AGGREGATION, Transformation.TRANSFORMATION, Transformation.IDENTITY]
        assert found == next(kind for kind in direct if kind in (later, earlier))


@pipelines
def test_every_column_of_every_hop_comes_from_one_that_the_hop_before_has(pipeline: Pipeline) -> None:
    state = datasets.internal(pipeline.name, "state")
    made = partials(pipeline)
    merged = lineage.merged(pipeline, made.dataset, state)
    fields = {column.name for column in made.schema}
    assert set(made.columns) == set(merged.columns) == fields
    for last in (lineage.rows(pipeline, state), lineage.published(pipeline, state)):
        assert {one.column for origins in last.columns.values() for one in origins} <= fields
    rows = lineage.rows(pipeline, state)
    table = {column.name for column in metadata.tables[pipeline.table].columns}
    assert set(rows.columns) == table - set(lineage.OWN)
    public = load(pipeline.output.schema)["fields"]
    assert set(lineage.published(pipeline, state).columns) >= {
        field["name"] for field in public if _is_plain(field["type"])
    }
    view = views()[datasets.view_name(pipeline.name)].output
    shown = {
        one.column for origins in view.columns.values() for one in origins if one.dataset == rows.dataset
    }
    assert shown <= set(rows.columns) | set(lineage.OWN)


@pipelines
def test_late_events_and_dead_letters_carry_the_event_as_it_stands(pipeline: Pipeline) -> None:
    outputs = {made.dataset: made for made in lineage.worker(pipeline, 1).outputs}
    events = {column["name"] for found in pipeline.inputs for column in load(found.source.schema)["fields"]}
    dead = outputs[datasets.topic(DEAD_LETTERS)]
    assert {one.column for one in dead.columns["value"]} == events
    assert {(one.column, one.kind) for one in dead.whole} >= {("currency", Transformation.FILTER)}
    # Without windows nothing is late.
    assert (datasets.topic(LATE_EVENTS) in outputs) == (pipeline.calendar is not None)
    if (late := outputs.get(datasets.topic(LATE_EVENTS))) is not None:
        assert {one.column for one in late.columns["event"]} == events
        assert [one.column for one in late.columns["window_end"]] == ["sold_at"]
        assert {one.column for one in late.whole} == {"sold_at", "recorded_at"}


@pipelines
def test_a_replay_writes_what_a_worker_does_but_for_late_events(pipeline: Pipeline) -> None:
    worker, replay = (
        {made.dataset for made in job.outputs}
        for job in (lineage.worker(pipeline, 2), lineage.replay(pipeline, 2))
    )
    assert replay == worker - {datasets.topic(LATE_EVENTS)}


def test_another_pipeline_has_another_lineage() -> None:
    pipeline = PIPELINES[TOP_SALES_BY_CITY.name, 1]
    (found,) = pipeline.inputs
    changed = replace(
        pipeline,
        group_by=("country", "currency"),
        inputs=(replace(found, aggregates=(Sum("pieces", "quantity"),)),),
    )
    columns = partials(changed).columns
    assert set(columns) == {"window_start", "window_end", "country", "currency", "pieces"}
    assert [(one.column, one.kind) for one in columns["pieces"]] == [("quantity", Transformation.AGGREGATION)]


def test_the_view_of_the_cities_is_the_sum_of_amounts_ranked() -> None:
    pipeline = PIPELINES[TOP_SALES_BY_CITY.name, 1]
    made = view_columns.answered(pipeline, datasets.internal(pipeline.name, "state"))
    assert [(one.column, one.kind) for one in made.columns["total"]] == [("total", Transformation.IDENTITY)]
    assert {one.kind for one in made.columns["rank"]} == {Transformation.WINDOW}
    assert "total" in {one.column for one in made.columns["rank"]}


# What a joined sale shows is a function in Python, so what it reads is tried: a total, and one leaf of it changed.
SALE = {
    "source": "postgres", "currency": "EUR", "sales_count": 1, "quantity": 1, "amount": 100_000, "seq": 1,
    "sold_at": 1_000_000, "country": "DE", "city": "Berlin", "salesman_id": "s1", "salesman_name": "Ada",
    "product": "tv",
}  # fmt: skip
PAYMENT = {
    "payment_id": "p1", "confirmed_at": 2_000_000, "seq": 1, "source": "soap", "amount": 100_000,
    "currency": "EUR", "status": "CONFIRMED",
}  # fmt: skip
TOTAL = {"sale_id": "a", "sales": [("k", SALE)], "payments": [("k", PAYMENT)]}


def test_a_joined_sale_shows_what_its_lineage_names() -> None:
    pipeline = PIPELINES[ENRICHED_SALES.name, 1]
    rows = lineage.rows(pipeline, datasets.internal(pipeline.name, "state"))
    derived = {(one.column, column) for column, origins in rows.columns.items() for one in origins}
    seen = {
        (leaf, column)
        for leaf, changed in _changed()
        for column in rows.columns
        if [row[column] for row in pipeline.rows(changed)] != [row[column] for row in pipeline.rows(TOTAL)]
    }
    # Of a single sale its count decides over nothing but itself; of two over whether it is ambiguous, and then pending.
    assert derived - seen <= {("sales.sales_count", "ambiguous"), ("sales.sales_count", "status")}
    assert seen <= derived
    two = deepcopy(TOTAL)
    two["sales"] = [*TOTAL["sales"], ("l", SALE | {"source": "csv"})]
    found = pipeline.rows(two)
    assert [(row["ambiguous"], row["status"]) for row in found] == [(True, "PENDING")] * 2


def _changed() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "sale_id", TOTAL | {"sale_id": "b"}
    for name, item in (("sales", SALE), ("payments", PAYMENT)):
        for column, value in item.items():
            other = value + 1 if isinstance(value, int) else f"{value}x"
            yield f"{name}.{column}", TOTAL | {name: [("k", item | {column: other})]}


def _is_plain(avro: Any) -> bool:
    return not (isinstance(avro, dict) and avro.get("type") == "array")
