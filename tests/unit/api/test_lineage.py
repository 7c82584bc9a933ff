"""The answer for a name that no job emitted."""

from __future__ import annotations

import pytest

from api.lineage import _unknown
from lineage.graph import Graph

SCHEMA = {"schema": {"fields": [{"name": "total"}, {"name": "city"}]}}
GRAPH = Graph.of(
    [
        {
            "name": "sink",
            "inputs": [],
            "outputs": [{"namespace": "postgres", "name": "public.tops", "facets": SCHEMA}],
        }
    ]
)


@pytest.mark.parametrize(
    ("dataset", "column"),
    [("tops.nothing", None), ("public.tops.nothing", None), ("tops", "nothing")],
)
def test_a_wrong_column_is_answered_by_the_dataset_s_columns(dataset: str, column: str | None) -> None:
    sentence = _unknown(GRAPH, dataset, column)
    assert "has no column nothing" in sentence
    assert sentence.endswith("it has total, city")


@pytest.mark.parametrize("dataset", ["nothing", "nothing.total"])
def test_a_wrong_dataset_by_those_that_there_are(dataset: str) -> None:
    assert _unknown(GRAPH, dataset, None) == f"no job reads or writes {dataset}; there are: public.tops"
