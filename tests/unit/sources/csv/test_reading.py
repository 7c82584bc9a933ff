"""A file's rows are sales or have a reason, and hostile files have a clear end."""

from __future__ import annotations

import csv
import os
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import texts
from sources.csv import parse
from sources.csv.parse import NoCsv
from sources.csv.validate import COLUMNS, EPOCH, MICROSECOND
from tests.support.csv_rows import GOOD, opened, read, reason, written


def test_every_column_that_is_wrong_is_told_the_first_as_the_reason() -> None:
    content = written(GOOD, GOOD | {"city": "", "quantity": "1.5", "amount": "ten", "currency": "euro"})
    with opened(content) as fd:
        head = parse.head(fd)
        (bad,) = [one for part in parse.parts(fd, head, head.body, False) for one in part.bad]
    assert bad.reason == "column city: is empty"
    assert bad.more == (
        "column quantity: is no whole number",
        "column amount: is no number like 12.50",
        "column currency: is not three capital letters",
    )


def refusal(content: bytes) -> str:
    with opened(content) as fd, pytest.raises(NoCsv) as refused:
        parse.head(fd)
    return str(refused.value)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=60)
MOMENTS = st.datetimes(datetime(1900, 1, 2), datetime(2199, 12, 30))  # noqa: DTZ001


@settings(deadline=None)
@given(
    TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, MOMENTS, st.sampled_from((0, 60, -330)),
    st.integers(-(2**31), 2**31 - 1), st.integers(-(10**18) + 1, 10**18 - 1), st.permutations(COLUMNS),
    st.sampled_from(("\n", "\r\n")), st.sampled_from((",", ";")), st.booleans(), st.booleans(),
)  # fmt: skip
def test_a_row_is_what_was_written(
    sale_id: str, city: str, country: str, salesman: str, name: str, product: str, sold: datetime, offset: int,
    quantity: int, unscaled: int, order: list[str], end: str, separator: str, bom: bool, all_quoted: bool,
) -> None:  # fmt: skip
    sold_at = sold.replace(tzinfo=timezone(timedelta(minutes=offset)))
    amount = format(Decimal(unscaled).scaleb(-4), "f")
    row = {
        "sale_id": sale_id, "sold_at": sold_at.isoformat(), "city": city, "country": country, "product": product,
        "salesman_id": salesman, "salesman_name": name, "quantity": str(quantity), "amount": amount, "currency": "EUR",
    }  # fmt: skip
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    content = written({column: row[column] for column in order}, delimiter=separator, quoting=quoting)
    if end == "\r\n":
        content = content.replace(b"\n", b"\r\n")
        row = {column: value.replace("\n", "\r\n") for column, value in row.items()}
    for column in ("sale_id", "city", "country", "salesman_id", "salesman_name", "product"):
        is_name = column not in ("salesman_name", "product")
        row[column] = (texts.normal if is_name else texts.description)(row[column])
    good, bad = read(b"\xef\xbb\xbf" * bom + content)
    names = [row[column] for column in ("sale_id", "city", "country", "salesman_id")]
    if any(not name or texts.fault(name) or len(name.encode()) > 256 for name in names):
        assert len(bad) == 1
        return
    assert bad == []
    (found,) = good
    assert EPOCH + found.pop("sold_at") * MICROSECOND == sold_at
    assert found == {name: row[name] for name in COLUMNS if name not in ("sold_at", "quantity", "amount")} | {
        "quantity": quantity, "amount": unscaled, "line": 2, "takes_back": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sale_id": ""}, "column sale_id: is empty"),
        ({"sale_id": "x" * 1_001}, "column sale_id: is longer than 1000 bytes"),
        ({"city": ""}, "column city: is empty"),
        ({"city": "ü" * 129}, "column city: is longer than 256 bytes"),
        ({"country": ""}, "column country: is empty"),
        ({"salesman_id": ""}, "column salesman_id: is empty"),
        ({"quantity": "1.5"}, "column quantity: is no whole number"),
        ({"quantity": ""}, "column quantity: is empty"),
        ({"quantity": "9" * 30}, "column quantity: is out of the range of a 32-bit integer"),
        ({"quantity": "2147483648"}, "column quantity: is out of the range of a 32-bit integer"),
        ({"amount": "1.23456"}, "column amount: has more than 4 decimals"),
        ({"amount": "1" * 15}, "column amount: has more than 14 digits before the point"),
        (
            {"amount": "1e5"},
            "column amount: is no number like 12.50: it has an exponent, and may have been rounded for it",
        ),
        ({"amount": "12,50"}, "column amount: is no number like 12.50"),
        ({"amount": "NaN"}, "column amount: is no number like 12.50: it stands for a missing value"),
        ({"currency": "eur"}, "column currency: is not three capital letters"),
        ({"sold_at": "yesterday"}, "column sold_at: is no time like 2026-01-31T23:59:59.5+01:00"),
        (
            {"sold_at": "2026-02-30T10:00:00Z"},
            "column sold_at: is no time like 2026-01-31T23:59:59.5+01:00: there is no day 2026-02-30",
        ),
        ({"sold_at": "1899-12-31T23:59:59Z"}, "column sold_at: is not between 1900-01-01 and 2200-01-01"),
        ({"sold_at": "2200-01-01T00:00:00Z"}, "column sold_at: is not between 1900-01-01 and 2200-01-01"),
    ],
)
def test_a_cell_that_is_refused_is_named(changes: dict[str, str], expected: str) -> None:
    assert reason(**changes) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"sold_at": "2150-01-01T00:00:00Z"},
        {"sold_at": "2026-11-22 10:00"},
        {"sold_at": "2026-11-22 10:00:00.123456+0100"},
        {"sale_id": "x" * 1_000},
        {"salesman_name": "", "product": ""},
        {"quantity": "-2147483648"},
        {"quantity": " +5 "},
        {"amount": "0001.5000000"},
        {"amount": "-" + "9" * 14 + ".9999"},
    ],
)
def test_what_the_rules_allow_is_taken(changes: dict[str, str]) -> None:
    assert reason(**changes) == ""


def test_without_an_offset_a_time_is_utc() -> None:
    ((row,), _) = read(written(GOOD | {"sold_at": "2026-11-22 10:00:00"}))
    assert EPOCH + row["sold_at"] * MICROSECOND == datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ("amount", ("\u0663", "1.\u0663", "\u0663.5")),
        ("quantity", ("\u0663", "1\u0663")),
        (
            "sold_at",
            (
                "2024-01-01T00:00:00.\u0663",
                "2024-01-01T00:00:00+0\u0663:00",
                "2024-01-01T00:00:00+01:0\u0663",
                "202\u0663-01-01T00:00:00",
            ),
        ),
    ],
)
def test_digits_of_another_script_are_refused(column: str, texts: tuple[str, ...]) -> None:
    """They are digits to a regex, but no number to a cast."""
    for text in texts:
        assert reason(**{column: text}).startswith(f"column {column}: is no ")


def test_a_formula_is_data() -> None:
    ((row,), bad) = read(written(GOOD | {"product": '=cmd("x")', "salesman_name": "@SUM(1+1)"}))
    assert (row["product"], row["salesman_name"], bad) == ('=cmd("x")', "@SUM(1+1)", [])


def test_a_word_that_pandas_takes_for_missing_is_a_text() -> None:
    ((row,), _) = read(written(GOOD | {"city": "NA", "product": "null", "salesman_id": "007"}))
    assert (row["city"], row["product"], row["salesman_id"]) == ("NA", "null", "007")


def test_a_byte_order_mark_within_the_file_is_seen() -> None:
    good, bad = read(written(GOOD | {"sale_id": "\ufeffa"}, GOOD))
    assert [row["sale_id"] for row in good] == ["a1"]
    assert bad == [(2, "column sale_id: holds U+FEFF ZERO WIDTH NO-BREAK SPACE at position 1")]


def test_a_decimal_comma_is_read_only_where_the_setting_says_so() -> None:
    content = written(GOOD | {"amount": "12,50"}, GOOD | {"amount": "12.50"}, delimiter=";")
    assert [row["amount"] for row in read(content, decimal_comma=True)[0]] == [125_000]
    assert [line for line, _ in read(content, decimal_comma=True)[1]] == [3]
    assert [line for line, _ in read(content)[1]] == [2]


def test_operation_reversal_needs_only_the_id() -> None:
    empty = dict.fromkeys(GOOD, "") | {"sale_id": "a1"}
    rows = ((GOOD, ""), (empty, "REVERSAL"), (empty, "SALE"), (GOOD, "VOID"))
    good, bad = read(written(*(row | {"operation": word} for row, word in rows)))
    assert [row["takes_back"] for row in good] == [False, True]
    assert [line for line, _ in bad] == [4, 5]
    assert bad[1][1] == "column operation: is neither SALE nor REVERSAL"


def test_line_numbers_count_lines_within_quotes() -> None:
    good, bad = read(written(GOOD | {"product": "a\nb\nc"}, GOOD, GOOD | {"amount": "x"}))
    assert [row["line"] for row in good] == [2, 5]
    assert [line for line, _ in bad] == [6]


def test_unknown_columns_are_named_and_passed_over() -> None:
    with opened(written(GOOD | {"till": "7"})) as fd:
        assert parse.head(fd).unknown == ("till",)
    assert len(read(written(GOOD | {"till": "7"}))[0]) == 1


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\xff\xfes\0a\0", "UTF-16"),
        (b"PK\x03\x04zip", "spreadsheet"),
        (b"\x1f\x8b", "gzip"),
        (b"{}\n", "JSON"),
        (b"sale_id,city\n1,2\n", "sold_at"),
        (b"x" * (1 << 20), "longer than"),
        (",".join(COLUMNS).encode() + b"\r" + b"1\r", "carriage return"),
        (",".join((*COLUMNS, "city")).encode() + b"\n", "city twice"),
        (b"sale_id\0,\n", "NUL"),
        (b"\n" * 100, "blank lines"),
    ],
)
def test_what_is_no_csv_says_why(content: bytes, word: str) -> None:
    assert word in refusal(content)


def test_a_huge_line_is_refused_in_flat_memory() -> None:
    """A sparse file of 1 GB without a line feed; reading it holds a few blocks."""
    import resource

    with opened(written(GOOD)) as fd:
        os.lseek(fd, 0, os.SEEK_END)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.ftruncate(fd, 1 << 30)
        head = parse.head(fd)
        parts = list(parse.parts(fd, head, head.body, False))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert sum(part.good.height for part in parts) == 1
    assert [(bad.line, bad.reason) for part in parts for bad in part.bad] == [
        (3, "is longer than 65536 bytes")
    ]
    assert grown < 64 * 1024


def test_row_26_a_row_that_no_record_could_hold_is_bad_and_the_others_are_good() -> None:
    """By its bytes and not its characters, the id twice because it is the record's key as well."""
    header = ",".join(GOOD)
    rows = [GOOD | {"sale_id": f"a{n}", "product": "ü" * n} for n in (10, 500, 20)]
    content = "\n".join([header, *(",".join(row.values()) for row in rows), ""]).encode()
    with opened(content) as fd:
        head = parse.head(fd)
        (part,) = parse.parts(fd, head, head.body, False)
        texts = (
            "sale_id",
            "sale_id",
            "city",
            "country",
            "salesman_id",
            "salesman_name",
            "product",
            "currency",
        )
        size = sum(len(rows[1][name].encode()) for name in texts)
        assert part.fitting(size) is part
        fitting = part.fitting(size - 1)
    assert fitting.good["sale_id"].to_list() == ["a10", "a20"]
    assert fitting.rows == 3
    (bad,) = fitting.bad
    assert bad.line == 3
    assert bad.raw.startswith(b"a500,")
    assert "is larger than" in bad.reason
