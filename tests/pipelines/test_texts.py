"""From version 2 on a log that an older release wrote adds up: texts are read by the rule that sources write by."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import texts
from streaming.engine.columns.texts import normalised
from streaming.engine.normal_texts import NormalTexts
from streaming.pipelines import CURRENT, PIPELINES
from streaming.testing import Driver
from tests.support.drivers import driver_of
from tests.support.events import NOON, confirmation, sale_event
from tests.support.histories import Source

SALE = sale_event(sale_id="a")


def test_a_new_generation_reads_texts_by_the_rule() -> None:
    """What `streaming init` makes; version 1 stays for generations that are pinned to it."""
    assert set(CURRENT.values()) == {2}
    assert all(found.normal for key in CURRENT.items() for found in PIPELINES[key].inputs)
    assert not any(found.normal for name in CURRENT for found in PIPELINES[name, 1].inputs)


def driver(name: str, version: int | None = None) -> Driver:
    return driver_of(PIPELINES[name, version or CURRENT[name]])


def run(made: Driver, *changes: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The totals after these events of one source."""
    source = Source()
    for operation, change in changes:
        made.event(source.event(SALE | change, operation, NOON))
    made.run()
    return list(made.totals().values())


@pytest.mark.parametrize("name", ["top-sales-by-city", "top-salesman-by-country"])
def test_row_5_what_was_written_with_blanks_is_taken_back_without_them(name: str) -> None:
    padded = {"city": "Berlin   ", "country": "DE ", "salesman_id": "s1  ", "salesman_name": "Ada  "}
    changes: list[tuple[str, dict[str, Any]]]
    changes = [("SALE", padded), ("SALE", {"sale_id": "b"}), ("REVERSAL", {})]
    (total,) = run(driver(name), *changes)
    assert (total["sales_count"], total["total"], total["country"]) == (1, Decimal("10.0000"), "DE")
    # Version 1 has a group that nothing will ever take back: hence a replay after the upgrade.
    assert {total["sales_count"] for total in run(driver(name, 1), *changes)} == {0, 1}


def test_row_15_the_join_meets_ids_of_both_writings() -> None:
    made = driver("enriched-sales")
    made.event(confirmation(payment_id=" p1 ", sale_id="bv1\xa0"), number=1)
    ((total),) = run(made, ("SALE", {"sale_id": " bv1", "product": "Fern\xadseher"}))
    assert total["sale_id"] == "bv1"
    assert [(sale["product"], sale["sales_count"]) for _, sale in total["sales"]] == [("Fernseher", 1)]
    assert [paid["payment_id"] for _, paid in total["payments"]] == ["p1"]


@pytest.mark.parametrize("name", sorted(CURRENT))
def test_row_15_what_cannot_be_seen_goes_to_the_dead_letters(name: str) -> None:
    made = driver(name)
    found = run(
        made,
        ("SALE", {"city": "Ber\u200blin"}),
        ("REVERSAL", {"city": "Ber\u200blin"}),
        ("SALE", {"sale_id": "a\tb"}),
        ("SALE", {"country": "\u3164"}),
        ("SALE", {"sale_id": "c", "salesman_name": "A\tda"}),
    )
    assert len(found) == 1
    assert sorted(letter["reason"] for letter in made.dead_letters()) == [
        "city holds a control or invisible character",
        "city holds a control or invisible character",
        "country is empty",
        "sale_id holds a control or invisible character",
    ]


@settings(deadline=None)
@given(
    st.lists(st.text("aé\u0301 \xa0\u200b\tж|", max_size=4), min_size=1, max_size=6),
    st.sampled_from([1, 101]),
    st.booleans(),
)
def test_a_column_is_read_as_each_text_is(found: list[str], times: int, is_name: bool) -> None:
    read = NormalTexts(("x",)) if is_name else NormalTexts((), ("x",))

    def expected(text: str) -> str | None:
        try:
            return texts.visible(text) if is_name else texts.description(text)
        except texts.Refused:
            return None

    frame = pl.DataFrame({"x": found * times})
    assert normalised(frame, read)["x"].to_list() == [expected(text) for text in found] * times
