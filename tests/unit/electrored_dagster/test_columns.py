"""Dagster's pages say of columns what lineage tells of them."""

from __future__ import annotations

import dagster as dg
import pytest

from electrored_dagster.columns import FILE, derive
from electrored_dagster.definitions import definitions


def test_the_file_is_what_the_pipelines_say() -> None:
    assert FILE.read_text(encoding="utf-8") == derive(), "run `make columns`"


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
