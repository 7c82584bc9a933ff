"""Dagster's pages say of columns what lineage tells of them."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pytest

from electrored_dagster import columns
from electrored_dagster.definitions import definitions


def test_the_file_is_derived_when_it_is_missing_or_older_than_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "FILE", tmp_path / "room" / "columns.json")
    monkeypatch.setattr(columns, "ROOMS", ("room",))
    (tmp_path / "room").mkdir()
    assert columns._is_outdated()
    columns.FILE.touch()
    assert not columns._is_outdated()
    (tmp_path / "room" / "pipeline.py").touch()
    os.utime(columns.FILE, ns=(1, 1))
    assert columns._is_outdated()


def test_the_file_is_what_the_pipelines_say() -> None:
    definitions()
    assert columns.FILE.read_text(encoding="utf-8") == columns.derive()


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
