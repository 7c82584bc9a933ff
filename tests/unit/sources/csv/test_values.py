"""Cells of files: whole columns are read as single cells are; what failed in other systems has its outcome."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import numbers, texts, times
from contracts.texts import Refused
from sources.csv import validate
from sources.csv.validate import COLUMNS, style_of
from tests.support.csv_rows import GOOD, read, reason, written

NUMBERS = st.from_regex(r"[+-]?[0-9]{0,4}([.,][0-9]{0,6})?", fullmatch=True) | st.text(
    "0123456789.,-+eE \u0663", max_size=10
)
TIMES = st.from_regex(
    r"20[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9](:[0-6][0-9]([.,][0-9]{0,9})?)?"
    r" ?(Z|z|UTC|[+-][01][0-9]:?[0-9]{0,2})?",
    fullmatch=True,
) | st.text("0123456789-:.TZ+ \u0663", max_size=30)
TEXTS = st.text("aé\u0301 \xa0\u200b\tж|", max_size=5) | st.text(max_size=4)
CELLS = st.fixed_dictionaries(
    dict.fromkeys(("sale_id", "city", "country", "salesman_id", "salesman_name", "product"), TEXTS)
    | {
        "sold_at": TIMES,
        "quantity": NUMBERS,
        "amount": NUMBERS,
        "currency": st.sampled_from(["EUR", "EUR ", "eur", ""]),
    }
)
STYLES = [style_of(separator, comma) for separator in (",", ";", "\t") for comma in (False, True)]


def cell_by_cell(cells: dict[str, str], style: numbers.Style) -> tuple[dict[str, Any], list[str]]:
    """The rules as `contracts` has them."""
    readers: dict[str, Any] = {
        "sale_id": lambda cell: texts.name(cell, texts.MOST_SALE_ID_BYTES),
        "sold_at": times.micros,
        **dict.fromkeys(("city", "country", "salesman_id"), texts.name),
        **dict.fromkeys(("salesman_name", "product"), texts.description),
        "quantity": lambda cell: numbers.quantity(cell, style),
        "amount": lambda cell: numbers.amount(cell, style),
        "currency": texts.currency,
    }
    values, faults = {}, []
    for name in COLUMNS:
        try:
            values[name] = readers[name](cells[name])
        except Refused as error:
            faults.append(f"column {name}: {error}")
    return values, faults


@settings(max_examples=300, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=4), st.sampled_from(STYLES))
def test_whole_columns_are_read_as_single_cells_are(
    cells: list[dict[str, str]], style: numbers.Style
) -> None:
    frame = pl.DataFrame(cells, schema=dict.fromkeys(COLUMNS, pl.String))
    checked = validate.check(frame.with_columns(line=pl.int_range(pl.len())), style)
    expected = [cell_by_cell(row, style) for row in cells]
    assert checked.refused == [(row, faults) for row, (_, faults) in enumerate(expected) if faults]
    good = [values for values, faults in expected if not faults]
    assert checked.good.select(COLUMNS).to_dicts() == [{name: row[name] for name in COLUMNS} for row in good]


def test_row_15_blanks_behind_separators_make_no_second_sale() -> None:
    """Header and values joined by `, `."""
    names = ", ".join(COLUMNS)
    row = "bv1, 2026-11-22T10:00:00Z, Berlin, DE, s1, Ada, tv, 1, 499.99, EUR"
    good, bad = read(f"{names}\n{row}\n{row.replace(', ', ',')}\n".encode())
    assert bad == []
    assert good[0] | {"line": 3} == good[1]


def test_row_15_nine_berlins_are_one_or_have_a_reason() -> None:
    odd = [
        "Berlin",
        "Berlin ",
        "Berlin\xa0",
        "\u3000Berlin",
        "Berlin\u200b",
        "Ber\tlin",
        "Ber\xadlin",
        "\ufeffBerlin",
        "Ber\u2060lin",
    ]
    good, bad = read(written(*(GOOD | {"city": city} for city in odd)))
    assert {row["city"] for row in good} == {"Berlin"}
    assert [reason for _, reason in bad] == [
        "column city: holds U+200B ZERO WIDTH SPACE at position 7",
        "column city: holds U+0009 CHARACTER TABULATION at position 4",
        "column city: holds U+00AD SOFT HYPHEN at position 4",
        "column city: holds U+FEFF ZERO WIDTH NO-BREAK SPACE at position 1",
        "column city: holds U+2060 WORD JOINER at position 4",
    ]


@pytest.mark.parametrize("column", ["sale_id", "city", "country", "salesman_id"])
def test_row_15_a_name_of_blanks_is_empty(column: str) -> None:
    for text in (" ", "\xa0", "\u200b", "\u3164"):
        assert reason(**{column: text}) == f"column {column}: is empty"


def test_row_16_three_rows_of_thousands_between_semicolons_are_refused() -> None:
    content = written(*(GOOD | {"sale_id": f"t{n}", "amount": "1.234"} for n in range(3)), delimiter=";")
    good, bad = read(content)
    assert good == []
    assert {reason for _, reason in bad} == {
        "column amount: may be 1234 or 1.2340: with this separator between the columns `.` may stand for thousands"
    }
    # What can be read in one way only counts, and so does the same amount where the point is customary.
    assert [row["amount"] for row in read(written(GOOD | {"amount": "1.2340"}, delimiter=";"))[0]] == [12_340]
    assert [row["amount"] for row in read(written(GOOD | {"amount": "1.234"}))[0]] == [12_340]


def test_row_16_quantities_and_the_other_dialect_are_judged_alike() -> None:
    assert read(written(GOOD | {"quantity": "1.000"}, delimiter=";"))[0] == []
    assert [row["quantity"] for row in read(written(GOOD | {"quantity": "1.000"}))[0]] == [1]
    assert [row["quantity"] for row in read(written(GOOD | {"quantity": "3.0"}, delimiter=";"))[0]] == [3]
    thousands = GOOD | {"amount": "1,234"}
    assert read(written(thousands), decimal_comma=True)[0] == []
    assert [row["amount"] for row in read(written(thousands, delimiter=";"), decimal_comma=True)[0]] == [
        12_340
    ]


def test_row_18_what_pandas_oracle_and_dotnet_write_is_taken() -> None:
    written_by = [
        {"quantity": "3.0"},
        {"amount": ".5"},
        {"amount": "-.5", "quantity": "-1.0"},
        {"sold_at": "2026-11-22T10:00:00.1234567Z"},
        {"sold_at": "2026-11-22 10:00:00.123456789+00:00"},
        {"sold_at": "2026-11-22 11:00:00.1234567 +01:00"},
    ]
    good, bad = read(written(*(GOOD | {"sale_id": f"p{n}"} | one for n, one in enumerate(written_by))))
    assert bad == []
    assert [(row["quantity"], row["amount"]) for row in good[:3]] == [
        (3, 4_999_900),
        (1, 5_000),
        (-1, -5_000),
    ]
    assert len({row["sold_at"] for row in good[3:]}) == 1
