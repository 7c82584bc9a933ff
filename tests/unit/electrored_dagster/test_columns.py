"""Dagster's pages say of columns what lineage tells of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from electrored_dagster import columns
from electrored_dagster.definitions import definitions


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of one room, and a code server that has just started in it."""
    monkeypatch.setattr(columns, "FILE", tmp_path / "room" / "columns.json")
    monkeypatch.setattr(columns, "ROOMS", ("room",))
    (tmp_path / "room").mkdir()
    columns._derived.cache_clear()
    yield tmp_path / "room"
    columns._derived.cache_clear()


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the process that derives; gives what it was asked."""
    asked: list[str] = []

    def derived() -> str:
        asked.append(columns.code_digest())
        return json.dumps({"code": asked[-1], "columns": {"kafka/x": {}}})

    monkeypatch.setattr(columns, "_derived_elsewhere", derived)
    return asked


def started(asked: list[str]) -> int:
    """How often it is derived by a process that starts."""
    before = len(asked)
    columns._derived.cache_clear()
    assert columns._derived() == {"kafka/x": {}}
    return len(asked) - before


def test_the_file_is_derived_when_it_is_missing_or_of_other_code(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = elsewhere(monkeypatch)
    assert [started(asked), started(asked)] == [1, 0]
    for name in ("pipeline.py", "total.avsc"):
        (room / name).write_text("a")
        # As it is in an image, or after a checkout of the former commit: times say nothing.
        os.utime(room / name, (1, 1))
        assert [started(asked), started(asked)] == [1, 0]
    (room / "notes.txt").write_text("no code")
    assert started(asked) == 0
    (room / "pipeline.py").write_text("b")
    assert [started(asked), started(asked)] == [1, 0]
    for broken in ("{", "[]", "{}"):
        columns.FILE.write_text(broken)
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
        read_only.setattr(columns, "NamedTemporaryFile", refused)
        assert [started(asked), started(asked)] == [1, 1]
    assert started(asked) == 1
    monkeypatch.setattr(columns, "NamedTemporaryFile", refused)
    assert started(asked) == 0


def test_the_file_is_what_the_pipelines_say() -> None:
    definitions()
    assert json.loads(columns.FILE.read_text(encoding="utf-8")) == json.loads(json.dumps(columns.derive()))


@pytest.mark.parametrize("top", ["top_sales_by_city", "top_salesman_by_country"])
def test_a_total_leads_to_the_tables_and_files_that_it_is_summed_from(top: str) -> None:
    specs = {spec.key: spec for spec in definitions().resolve_all_asset_specs()}
    place = (dg.AssetKey(["results_db", "public", top]), "total")
    ends, ways = set(), [place]
    while ways:
        key, column = ways.pop()
        lineage = specs[key].metadata.get("dagster/column_lineage")
        deps = lineage.deps_by_column[column] if isinstance(lineage, dg.TableColumnLineage) else []
        ways += [(dep.asset_key, dep.column_name) for dep in deps]
        if not deps:
            ends.add((key.to_user_string(), column))
    assert ends == {("sales_db/public/sales", "amount"), ("files/inbox", "amount")}


def test_every_asset_with_columns_links_to_the_whole_way() -> None:
    for spec in definitions().resolve_all_asset_specs():
        if "dagster/column_lineage" in spec.metadata:
            assert "/api/v1/lineage?dataset=" in spec.metadata["lineage"].value
