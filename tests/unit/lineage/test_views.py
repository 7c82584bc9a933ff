"""Where the views' columns come from, by the views' own SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from contracts import datasets
from contracts.datasets import PIPELINES, view_name, view_names
from lineage import views as of_views
from lineage.model import Column, InputField, OutputDataset, Transformation
from lineage.views import View, views

AS_IS, COMPUTED, AGGREGATED, JOINED, GROUPED, FILTERED, SORTED, WINDOW, CONDITION = Transformation
PROJECT = Path(__file__).resolve().parents[3]


def source(table: str, column: str, kind: Transformation) -> InputField:
    return InputField(datasets.table(table), column, kind)


def columns(view: str) -> Mapping[str, tuple[InputField, ...]]:
    return views()[view].output.columns


def test_every_pipeline_has_a_view_and_every_view_is_named() -> None:
    assert {view_name(pipeline) for pipeline in PIPELINES} <= set(views())
    assert set(view_names()) == set(views())


def test_a_total_is_shown_as_it_is_and_ranked_by() -> None:
    view = views()["top_sales_by_city"].output
    assert view.columns["total"] == (source("city_totals", "total", AS_IS),)
    assert source("city_totals", "total", WINDOW) in view.columns["rank"]
    assert source("city_totals", "sales_count", FILTERED) in view.whole
    assert source("active_freshness", "generation", JOINED) in view.whole


def test_what_a_status_depends_on_is_a_condition() -> None:
    assert source("active_freshness", "watermark", CONDITION) in columns("enriched_sales")["status"]


def test_of_a_watermark_the_least_is_shown_and_the_subquery_s_clauses_only_decide() -> None:
    watermark = columns("active_freshness")["watermark"]
    assert [one for one in watermark if one.kind in (AS_IS, COMPUTED, AGGREGATED)] == [
        source("sink_positions", "watermark", AGGREGATED)
    ]
    assert {(one.dataset.path[-1], one.column) for one in watermark if one.kind == FILTERED} == {
        ("sink_positions", "pipeline"),
        ("sink_positions", "generation"),
        ("generations", "pipeline"),
        ("generations", "number"),
    }
    # How many partitions have one is compared with how many there are.
    assert source("sink_positions", "watermark", CONDITION) in watermark
    assert source("generations", "topics", CONDITION) in watermark


def test_a_value_that_may_be_replaced_if_it_is_null_decides_as_well() -> None:
    final = columns("top_sales_by_city")["is_final"]
    assert {one.kind for one in final if one.column == "watermark"} == {COMPUTED, CONDITION}


def test_every_view_names_the_migration_that_made_it() -> None:
    for name, view in views().items():
        assert name in (PROJECT / view.code).read_text(encoding="utf-8")
    assert views()["enriched_sales"].code.endswith("/0003_joined_sales.py")
    assert views()["top_sales_by_city"].code.endswith("/0001_results.py")


@pytest.fixture
def migrated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Migrations of its own."""
    migrations: list[tuple[str, str]] = []
    monkeypatch.setattr(of_views, "_migrations", lambda: iter(migrations))
    views.cache_clear()
    yield migrations
    views.cache_clear()


def test_the_last_migration_that_makes_a_view_defines_it(migrated: list[tuple[str, str]]) -> None:
    migrated += [
        ("1.py", "CREATE VIEW a AS SELECT t.city FROM city_totals t;\nCREATE VIEW b AS SELECT a.city FROM a"),
        ("2.py", "DROP VIEW b;\nCREATE OR REPLACE VIEW a AS SELECT t.total FROM city_totals t"),
    ]
    assert views() == {
        "a": View(
            OutputDataset(
                datasets.table("a"),
                {"total": (source("city_totals", "total", AS_IS),)},
                schema=(Column("total", "numeric(38,4)"),),
            ),
            "2.py",
        )
    }


@pytest.mark.parametrize(
    ("sql", "uses"),
    [
        ("sum(t.total) OVER (PARTITION BY t.city ORDER BY t.country)", (AGGREGATED, WINDOW, WINDOW)),
        (
            "(SELECT max(t.total) FROM city_totals t GROUP BY t.city HAVING count(t.country) > 1)",
            (AGGREGATED, GROUPED, FILTERED),
        ),
        ("(SELECT t.total FROM city_totals t ORDER BY t.city LIMIT 1)", (COMPUTED, SORTED)),
        (
            "(SELECT t.total FROM city_totals t JOIN salesman_totals s ON s.country = t.country)",
            (COMPUTED, JOINED, JOINED),
        ),
    ],
)
def test_what_a_clause_is_for_decides_how_its_columns_are_used(
    migrated: list[tuple[str, str]], sql: str, uses: tuple[Transformation, ...]
) -> None:
    migrated.append(("1.py", f"CREATE VIEW a AS SELECT {sql} AS x FROM city_totals t"))
    assert Counter(one.kind for one in columns("a")["x"]) == Counter(uses)


def test_a_type_that_nobody_knows_is_an_error(migrated: list[tuple[str, str]]) -> None:
    migrated.append(("1.py", "CREATE VIEW a AS SELECT own(t.city) AS x FROM city_totals t"))
    with pytest.raises(ValueError, match="of which type is OWN"):
        views()
