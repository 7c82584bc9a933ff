"""One name per dataset."""

from __future__ import annotations

import pytest

from contracts import datasets
from contracts.datasets import Dataset
from contracts.topics import SALES_EVENTS


@pytest.mark.parametrize(
    ("dataset", "key", "name"),
    [
        (datasets.SALES, "sales_db/public/sales", "public.sales"),
        (datasets.topic(SALES_EVENTS), "kafka/sales-events", "sales-events"),
        (datasets.internal("enriched-sales", "state"), "kafka/enriched-sales.state", "enriched-sales.state"),
        (datasets.view("enriched-sales"), "results_db/public/enriched_sales", "public.enriched_sales"),
    ],
)
def test_names(dataset: Dataset, key: str, name: str) -> None:
    assert "/".join(dataset.key) == key
    assert dataset.name == name


def test_an_internal_topic_of_a_generation_has_its_number() -> None:
    assert datasets.internal_topic("top-sales-by-city", 7, "partials").name == "top-sales-by-city.g7.partials"
    assert datasets.internal_topic("top-sales-by-city", 7, "state").name == "top-sales-by-city.g7.state"
