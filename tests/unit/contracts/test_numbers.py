"""How numbers are written: one grammar, in which nothing can be read in two ways."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import numbers
from contracts.numbers import Style
from contracts.texts import Refused

COMMA, UNSURE, UNSURE_COMMA = Style(","), Style(".", is_certain=False), Style(",", is_certain=False)


@given(st.decimals(-(10**14) + 1, 10**14 - 1, places=4, allow_nan=False, allow_infinity=False), st.booleans())
def test_an_amount_is_what_was_written(amount: Decimal, comma: bool) -> None:
    text = format(amount, "f")
    style = COMMA if comma else numbers.POINT
    assert numbers.amount(text.replace(".", style.sign), style) == int(amount.scaleb(4))


@pytest.mark.parametrize(
    ("text", "value"),
    [(".5", 5_000), ("-.5", -5_000), ("5.", 50_000), ("+5", 50_000), ("007.50", 75_000), ("1.50000000", 15_000),
     (" 12.5\xa0", 125_000), ("0", 0), ("-0.0", 0), ("1.234", 12_340), ("." + "0" * 50, 0)],
)  # fmt: skip
def test_row_18_what_is_unambiguous_is_taken(text: str, value: int) -> None:
    assert numbers.amount(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("\u200b", "is empty"),
        (".", "is no number like 12.50"),
        ("-", "is no number like 12.50"),
        ("12,50", "is no number like 12.50"),
        ("1,234.50", "is no number like 12.50: it has separators of thousands"),
        ("1.234.567", "is no number like 12.50: it has separators of thousands"),
        ("1 234.5", "is no number like 12.50: it has separators of thousands"),
        ("1'234", "is no number like 12.50: it has separators of thousands"),
        ("1_000", "is no number like 12.50: it has separators of thousands"),
        ("1E+5", "is no number like 12.50: it has an exponent, and may have been rounded for it"),
        ("12-", "is no number like 12.50: its sign does not stand in front"),
        ("(12.50)", "is no number like 12.50: its sign does not stand in front"),
        ("NaN", "is no number like 12.50: it stands for a missing value"),
        ("-inf", "is no number like 12.50: it stands for a missing value"),
        ("#N/A", "is no number like 12.50: it stands for a missing value"),
        ("12.50 €", "is no number like 12.50: it holds U+20AC EURO SIGN"),
        ("\u221212", "is no number like 12.50: it holds U+2212 MINUS SIGN"),
        ("\u0663", "is no number like 12.50: it holds U+0663 ARABIC-INDIC DIGIT THREE"),
        ("1.23456", "has more than 4 decimals"),
        ("1" * 15, "has more than 14 digits before the point"),
        ("0x10", "is no number like 12.50"),
        ("--1", "is no number like 12.50"),
    ],
)
def test_a_refused_amount_has_its_reason(text: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        numbers.amount(text)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("text", "value"), [("3.0", 3), ("3.", 3), ("3.000", 3), ("-2.00", -2), ("+5", 5), ("0003", 3), (".0", 0)]
)
def test_row_18_a_whole_number_may_have_decimals_that_are_zeros(text: str, value: int) -> None:
    assert numbers.quantity(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1.5", "is no whole number"),
        ("1e3", "is no whole number: it has an exponent, and may have been rounded for it"),
        *(
            (text, "is out of the range of a 32-bit integer")
            for text in ("2147483648", "-2147483649", "9" * 5_000)
        ),
        ("", "is empty"),
    ],
)
def test_a_refused_quantity_has_its_reason(text: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        numbers.quantity(text)
    assert str(refused.value) == reason


@pytest.mark.parametrize("text", ["1.234", "12.345", "999.000", "-1.234", "+1.234"])
def test_row_16_a_number_that_another_dialect_reads_differently_is_refused(text: str) -> None:
    for read in (numbers.amount, numbers.quantity):
        with pytest.raises(Refused, match="may stand for thousands"):
            read(text, UNSURE)
        with pytest.raises(Refused, match="may stand for thousands"):
            read(text.replace(".", ","), UNSURE_COMMA)


@pytest.mark.parametrize(
    ("text", "value"),
    [("12.50", 125_000), ("1.2340", 12_340), ("0.234", 2_340), ("1234.567", 12_345_670), (".234", 2_340),
     ("1234", 12_340_000)],
)  # fmt: skip
def test_row_16_what_only_one_dialect_can_mean_is_taken(text: str, value: int) -> None:
    assert numbers.amount(text, UNSURE) == value
    assert numbers.amount(text.replace(".", ","), UNSURE_COMMA) == value


@pytest.mark.parametrize("text", ["12.50", "1.234", "1.234,50"])
def test_with_a_comma_a_point_is_neither(text: str) -> None:
    with pytest.raises(Refused, match="is no number like 12,50"):
        numbers.amount(text, COMMA)
