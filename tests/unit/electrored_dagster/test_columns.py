"""Dagster's pages show the columns that lineage emits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest

from contracts import datasets
from contracts.datasets import Dataset
from electrored_dagster import column_lineage
from electrored_dagster.definitions import definitions
from lineage.emitter import START
from lineage.graph import Graph, Place
from observability.progress_report import ProgressReport
from sources import lineage as of_sources
from streaming import lineage as of_streaming
from streaming import view_columns as of_views
from streaming.pipelines import CURRENT, PIPELINES
from tests.support.lineage_events import JOBS, PLACES, run_event


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of one package, and a code server just started in it."""
    monkeypatch.setattr(column_lineage, "FILE", tmp_path / "room" / "columns.json")
    monkeypatch.setattr(column_lineage, "PACKAGES", ("room",))
    (tmp_path / "room").mkdir()
    column_lineage._derived.cache_clear()
    yield tmp_path / "room"
    column_lineage._derived.cache_clear()


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the process that derives; gives what it was asked."""
    asked: list[str] = []

    def derived() -> str:
        asked.append(column_lineage.code_digest())
        return json.dumps({"code": asked[-1], "columns": {"kafka/x": {}}})

    monkeypatch.setattr(column_lineage, "_derived_elsewhere", derived)
    return asked


def started(asked: list[str]) -> int:
    """How often it is derived by a process that starts."""
    before = len(asked)
    column_lineage._derived.cache_clear()
    derived: object = column_lineage._derived()
    assert derived == {"kafka/x": {}}
    return len(asked) - before


def test_the_file_is_derived_when_it_is_missing_or_of_other_code(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = elsewhere(monkeypatch)
    assert [started(asked), started(asked)] == [1, 0]
    for name in ("pipeline.py", "total.avsc", "service.wsdl"):
        (room / name).write_text("a")
        # As it is in an image, or after a checkout of the former commit: times mean nothing.
        os.utime(room / name, (1, 1))
        assert [started(asked), started(asked)] == [1, 0]
    (room / "notes.txt").write_text("no code")
    assert started(asked) == 0
    (room / "pipeline.py").write_text("b")
    assert [started(asked), started(asked)] == [1, 0]
    for broken in ("{", "[]", "{}"):
        column_lineage.FILE.write_text(broken)
        assert [started(asked), started(asked)] == [1, 0]
    assert [found.name for found in room.glob("*.json")] == ["columns.json"]


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_start(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the image is taken if it is there; without it each start derives."""
    asked = elsewhere(monkeypatch)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    with monkeypatch.context() as read_only:
        read_only.setattr(column_lineage, "NamedTemporaryFile", refused)
        assert [started(asked), started(asked)] == [1, 1]
    assert started(asked) == 1
    monkeypatch.setattr(column_lineage, "NamedTemporaryFile", refused)
    assert started(asked) == 0


def test_the_file_is_what_the_pipelines_derive() -> None:
    definitions()
    assert json.loads(column_lineage.FILE.read_text(encoding="utf-8")) == json.loads(
        json.dumps(column_lineage.derive())
    )


def lineages() -> dict[dg.AssetKey, dg.TableColumnLineage]:
    """Of every asset that has one."""
    specs = definitions().resolve_all_asset_specs()
    found = {spec.key: spec.metadata.get("dagster/column_lineage") for spec in specs}
    return {key: made for key, made in found.items() if isinstance(made, dg.TableColumnLineage)}


@pytest.mark.parametrize("top", ["top_sales_by_city", "top_salesman_by_country"])
def test_a_total_leads_to_the_tables_and_files_that_it_is_summed_from(top: str) -> None:
    of = lineages()
    place = (dg.AssetKey(["results_db", "public", top]), "total")
    ends, ways = set(), [place]
    while ways:
        key, column = ways.pop()
        outputs = column_lineage._derived().get("/".join(key.path), [])
        direct = {
            (dg.AssetKey(origin), name)
            for output in outputs
            for origin, name, made, _ in output["columns"].get(column, ())
            if made == column_lineage.DIRECT
        }
        if direct:
            assert direct <= {(dep.asset_key, dep.column_name) for dep in of[key].deps_by_column[column]}
        else:
            ends.add((key.to_user_string(), column))
        ways += direct
    assert ends == {("sales_db/public/sales", "amount"), ("files/inbox", "amount")}


def test_every_asset_has_the_columns_and_dependencies_of_the_events() -> None:
    """The events of all jobs as they go out, against the metadata as the pages get it."""
    current = [PIPELINES[key] for key in CURRENT.items()]
    streaming = (of_streaming.worker, of_streaming.sink, of_streaming.publisher)
    jobs = [of_sources.capture("public.sales"), of_sources.csv(), of_sources.soap()]
    jobs += [make(pipeline, 1) for pipeline in current for make in streaming]
    jobs += map(of_views.shown, datasets.view_names())
    graph = Graph.of({"name": job.name, **run_event(job, START, ProgressReport())} for job in jobs)
    specs = {spec.key: spec for spec in definitions().resolve_all_asset_specs()}
    names = {_place(key.path): key for key in specs}
    tables = {PLACES.name(datasets.table(pipeline.table)) for pipeline in current}
    below: dict[tuple[Place, bool], set[Place]] = {}
    for edge in graph.edges:
        below.setdefault((edge.target, edge.source.column is not None), set()).add(edge.source)

    def from_assets(place: Place) -> set[Place]:
        """What a place comes from; of a table that no asset stands for, what that comes from."""
        found = set()
        for source in below.get((place, place.column is not None), ()):
            if (source.namespace, source.name) in names:
                found.add(source)
            elif (source.namespace, source.name) in tables:
                found |= from_assets(source)
        return found

    expected: dict[dg.AssetKey, dict[str, set[tuple[dg.AssetKey, str]]]] = {}
    datasets_of: dict[dg.AssetKey, set[dg.AssetKey]] = {}
    for target in {edge.target for edge in graph.edges}:
        key = names.get((target.namespace, target.name))
        if key is not None and target.column is None:
            datasets_of[key] = {names[one.namespace, one.name] for one in from_assets(target)}
        elif key is not None and target.column is not None:
            of = {(names[one.namespace, one.name], str(one.column)) for one in from_assets(target)}
            expected.setdefault(key, {})[target.column] = of
    found = {
        key: {
            column: {(dep.asset_key, dep.column_name) for dep in deps}
            for column, deps in made.deps_by_column.items()
        }
        for key, made in lineages().items()
    }
    assert found == expected
    # What a replay found to differ is no job's output: a run of Dagster's writes it, and emits its checks.
    depending = {key: {dep.asset_key for dep in spec.deps} for key, spec in specs.items() if spec.deps}
    assert {key: deps for key, deps in depending.items() if "differences" not in key.path} == datasets_of


def _place(path: Sequence[str]) -> tuple[str, str]:
    """How events call an asset: an internal topic with the number of a generation."""
    system, *names = path
    for pipeline in datasets.PIPELINES:
        for role in datasets.ROLES:
            if list(path) == datasets.internal(pipeline, role).key:
                return PLACES.name(datasets.topic(datasets.internal_topic(pipeline, 1, role)))
    return PLACES.name(Dataset(system, tuple(names)))


@pytest.mark.parametrize(
    ("asset", "column", "decided_by"),
    [
        ("kafka/top-sales-by-city.partials", "total", "sales-events.seq (filter)"),
        ("kafka/top-sales-by-city.partials", "total", "sales-events.sold_at (window)"),
        ("kafka/top-sales-by-city.state", "total", "top-sales-by-city.partials.city (group by)"),
        ("kafka/enriched-sales.partials", "sale_id", "payment-confirmations.sale_id (join)"),
        ("results_db/public/top_sales_by_city", "total", "top-sales-by-city.state.sales_count (filter)"),
        ("kafka/late-events", "event", "sales-events.recorded_at (filter)"),
        ("kafka/dead-letters", "value", "inbox.amount (filter)"),
    ],
)
def test_what_decides_over_rows_is_a_line_and_a_dependency_of_each_column(
    asset: str, column: str, decided_by: str
) -> None:
    (spec,) = [s for s in definitions().resolve_all_asset_specs() if s.key.to_user_string() == asset]
    records = {
        record.data["column"]: record.data for record in spec.metadata["where_columns_come_from"].records
    }
    assert decided_by in str(records[column_lineage.EVERY_ROW]["decided by"]).split(", ")
    deps = {
        f"{dep.asset_key.path[-1]}.{dep.column_name}"
        for dep in spec.metadata["dagster/column_lineage"].deps_by_column[column]
    }
    assert decided_by.partition(" ")[0] in deps


def test_every_asset_with_columns_links_to_a_way_that_the_api_has() -> None:
    """Whatever its generation's number is: it is another one in the events here."""
    makes = (of_streaming.worker, of_streaming.sink, of_streaming.publisher)
    jobs = [*JOBS, *(make(pipeline, 7) for pipeline in PIPELINES.values() for make in makes)]
    graph = Graph.of({"name": job.name, **run_event(job, START, ProgressReport())} for job in jobs)
    specs = [s for s in definitions().resolve_all_asset_specs() if "dagster/column_lineage" in s.metadata]
    assert specs
    for spec in specs:
        asked = parse_qs(urlsplit(spec.metadata["lineage"].value).query)
        assert len(graph.find(asked["dataset"][0])) == 1, spec.key
