"""Files as other programs write them: what is unambiguous is taken, what is wrong as a whole has one reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.csv import parse, records
from sources.csv.heads import NoCsv
from sources.csv.judging import judge
from sources.csv.records import MOST_RECORDS
from sources.csv.validate import COLUMNS
from tests.support import csv_rows
from tests.support.csv_rows import Rows, opened

ROWS = [
    (f"a{n}", "2026-11-22T10:00:00Z", "Köln", "DE", "s1", "Ada", 'TV, 40"', "2", f"{n}.50", "EUR")
    for n in range(3)
]


def read(content: bytes) -> Rows:
    """Of a file that is not wrong as a whole."""
    with opened(content) as fd:
        judge(fd, False)
    return csv_rows.read(content)


def refusal(content: bytes) -> str:
    with opened(content) as fd, pytest.raises(NoCsv) as refused:
        judge(fd, False)
    return str(refused.value)


def text(rows: Sequence[tuple[str, ...]] = ROWS, header: tuple[str, ...] = COLUMNS, **options: Any) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, **{"lineterminator": "\r\n"} | options).writerows([header, *rows])
    return out.getvalue()


def is_as_written(content: bytes, line: int = 2) -> None:
    good, bad = read(content)
    assert bad == []
    names = ("sale_id", "city", "country", "product", "quantity", "amount", "currency")
    assert [tuple(row[name] for name in names) for row in good] == [
        (f"a{n}", "Köln", "DE", 'TV, 40"', 2, n * 10_000 + 5_000, "EUR") for n in range(3)
    ]
    assert [row["line"] for row in good] == [line, line + 1, line + 2]


def with_blanks(quotes_all: bool) -> str:
    """Joined by a comma and a blank, as no writer of a library does."""

    def cell(value: str) -> str:
        escaped = value.replace('"', '""')
        return f'"{escaped}"' if quotes_all or "," in value else value

    return "".join(", ".join(map(cell, row)) + "\n" for row in (COLUMNS, *ROWS))


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=list(COLUMNS))


EXPORTS = {
    "Excel, CSV UTF-8, German": ("\ufeff" + text(delimiter=";"), 2),
    "Excel's own sep line": ("sep=;\r\n" + text(delimiter=";"), 3),
    "the same in quotes, behind a BOM": ('\ufeff"SEP=\t"\r\n' + text(delimiter="\t"), 3),
    "sep=, with blank lines": ("\r\n\r\nsep=,\r\n\r\n" + text(), 6),
    "tabs": (text(delimiter="\t"), 2),
    "tabs, all in quotes": (text(delimiter="\t", quoting=csv.QUOTE_ALL), 2),
    "bars": (text(delimiter="|"), 2),
    "bars and stray quotes": (text(delimiter="|", quoting=csv.QUOTE_NONE, quotechar=None), 2),
    "line ends translated twice": (text().replace("\r\n", "\r\r\n"), 2),
    "the same with stray quotes": (
        text(delimiter=";", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\r\r\n"), 2,
    ),
    "quotes behind blanks": (with_blanks(True), 2),
    "joined by comma and blank": (with_blanks(False), 2),
    "a separator at each end of a row": (text([(*row, "") for row in ROWS]), 2),
    "the same where quotes stray": (
        text([(*row, "") for row in ROWS], delimiter=";", quoting=csv.QUOTE_NONE, quotechar=None), 2,
    ),
    "also of the header": (text([(*row, "") for row in ROWS], (*COLUMNS, "")), 2),
    "capitals": (text(header=tuple(name.upper() for name in COLUMNS)), 2),
    "a rule below the header": (
        text([tuple("-" * len(name) for name in COLUMNS), *ROWS], lineterminator="\n"), 3,
    ),
    "rows of separators and blank lines at the end": (text([*ROWS, ("",) * 10, ("",) * 10]) + "\r\n\r\n", 2),
    "the end of a file for DOS": (text() + "\x1a", 2),
    "lines of blanks": (text() + "   \r\n\t \n ", 2),
    "lines of blanks where quotes stray": (
        text(delimiter=";", quoting=csv.QUOTE_NONE, quotechar=None) + "   \r\n\t \n ", 2,
    ),
    "the same in quotes": (text([*ROWS, ("",) * 10], quoting=csv.QUOTE_ALL), 2),
    "two byte order marks": ("\ufeff\ufeff" + text(), 2),
    "pandas": (frame().to_csv(index=False), 2),
    "pandas with its index": (frame().to_csv(), 2),
    "pandas, all but numbers in quotes": (frame().to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC), 2),
    "pandas with a named index, tabs": (frame().to_csv(sep="\t", index_label="n"), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_row_18_what_programs_write_is_taken_wherever_a_block_begins(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, line = EXPORTS[name]
    is_as_written(content.encode(), line)
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 200)
    monkeypatch.setattr(records, "BLOCK_BYTES", 401)
    is_as_written(content.encode(), line)


def test_row_18_joined_files_name_their_columns_again() -> None:
    """`cat a b`, each with its byte order mark; one with the columns in another order is no such file."""
    of_exports: list[dict[str, Any]] = [{}, {"delimiter": ";", "quoting": csv.QUOTE_NONE, "quotechar": None}]
    for options in of_exports:
        one = text(ROWS[:2], **options)
        other = text(ROWS[2:], **options)
        good, bad = read(f"\ufeff{one}\ufeff{other}".encode())
        assert ([row["line"] for row in good], bad) == ([2, 3, 5], [])
    swapped = [(*row[:2], row[3], row[2], *row[4:]) for row in ROWS]
    header = (*COLUMNS[:2], COLUMNS[3], COLUMNS[2], *COLUMNS[4:])
    assert refusal((text() + text(swapped, header)).encode()).startswith("line 5 names the columns again")


REFUSED = {
    "Windows-1252": (text().encode("cp1252"), "it is not in UTF-8: 3 lines"),
    "UTF-16": (text().encode("utf-16"), "UTF-16; save it as CSV in UTF-8"),
    "UTF-16LE without BOM": (text().encode("utf-16-le"), "UTF-16 without a byte order mark"),
    "UTF-16BE without BOM": (text().encode("utf-16-be"), "UTF-16 without a byte order mark"),
    "UTF-32": (text().encode("utf-32"), "UTF-32"),
    "blank lines": (b"\r\n \n\t\n\n", "blank lines only"),
    "nothing but a mark": (b"\xef\xbb\xbf", "blank lines only"),
    "sep of nothing": (b"sep=x\n" + text().encode(), "sep=x, which is no separator"),
    "sep of another": (b"sep=;\n" + text().encode(), "does not name the columns"),
    "another separator below the header": (
        (",".join(COLUMNS) + "\n" + text(delimiter=";").partition("\n")[2]).encode(),
        "each of its 3 rows is refused: has ",
    ),
    "a decimal comma in each row": (
        text([(*row[:8], "1,50", row[9]) for row in ROWS], delimiter=";").encode(),
        "each of its 3 rows is refused: column amount",
    ),
    "a row with more cells": (
        text([(*row[:5], "x", *row[5:]) for row in ROWS]).encode(), "has 11 fields, the header has 10",
    ),
    "an old spreadsheet": (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel"),
    "a page": (b"<html><table>", "HTML"),
}  # fmt: skip


def test_row_18_neighbour_good_rows_behind_a_block_without_any_count() -> None:
    """20,000 rows are a block; the rest of the file is taken once its rows have a city."""
    bad = [(f"b{n}", ROWS[0][1], "", *ROWS[0][3:]) for n in range(MOST_RECORDS + 1_000)]
    good, letters = read(text([*bad, *ROWS]).encode())
    assert ([row["sale_id"] for row in good], len(letters)) == (["a0", "a1", "a2"], len(bad))
    # A block to the last byte is a whole file; one row more is not.
    assert refusal(text(bad[:5_000]).encode()).startswith("each of its 5000 rows is refused: column city")
    good, letters = read(text(bad).encode())
    assert (good, len(letters)) == ([], len(bad))


def test_row_18_neighbour_a_header_that_begins_like_an_archive_is_a_header() -> None:
    rows = [(str(n), *row) for n, row in enumerate(ROWS)]
    good, bad = read(text(rows, ("PK", *COLUMNS)).encode())
    assert ([row["sale_id"] for row in good], bad) == (["a0", "a1", "a2"], [])
    assert "ZIP archive" in refusal(b"PK\x03\x04zip")


@pytest.mark.parametrize("name", REFUSED)
def test_row_18_what_is_wrong_as_a_whole_has_one_reason(name: str) -> None:
    content, reason = REFUSED[name]
    assert reason in refusal(content)


def test_row_18_what_is_wrong_in_a_row_costs_the_row() -> None:
    """Among rows that are right, and where each is wrong in its own way, or is the only one."""
    plain = [tuple(cell.replace("ö", "oe") for cell in row) for row in ROWS]
    content = text(plain).encode().replace(b"a1", b"a\xf6")
    good, bad = read(content)
    assert (len(good), bad) == (2, [(3, "is not UTF-8")])
    good, bad = read(text([*ROWS, (*ROWS[0], "x")]).encode())
    assert (len(good), bad) == (3, [(5, "has 11 fields, the header has 10")])
    # A comma too many and an empty last cell do not make a row of another: no other row ends so.
    good, bad = read(text([*ROWS, (*ROWS[0], "")]).encode())
    assert (len(good), len(bad)) == (3, 1)
    assert len(read(text([(*ROWS[0], "x")]).encode())[1]) == 1
    assert len(read(text([(*ROWS[0], "x"), (*ROWS[0][:9], "eur")]).encode())[1]) == 2
    mixed = text(ROWS).encode() + text(ROWS).partition("\n")[2].encode("cp1252")
    good, bad = read(mixed)
    assert (len(good), len(bad)) == (3, 3), "one of the two is UTF-8"


HEADS = [",".join(COLUMNS), ";".join(COLUMNS), '", "'.join(COLUMNS).join('""'), "sep=;", "\ufeff", "\0", ""]
PIECES = [*'a,;"\r\n\0 -ö\t|', "\r\r\n", *HEADS, ",".join(ROWS[0]), ";".join(ROWS[0])]


@settings(deadline=None)
@given(
    st.sampled_from(HEADS),
    st.lists(st.sampled_from(PIECES), max_size=30),
    st.sampled_from(["utf-8", "cp1252", "utf-16"]),
    st.integers(401, 900),
)
def test_whatever_a_file_holds_it_is_read_or_has_a_reason(
    head: str, pieces: list[str], encoding: str, block_bytes: int
) -> None:
    content = f"{head}\n{''.join(pieces)}".encode(encoding, errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_RECORD_BYTES", 400)
        try:
            whole = read(content)
        except NoCsv:
            return
        patch.setattr(records, "BLOCK_BYTES", block_bytes)
        assert csv_rows.read(content) == whole


def test_row_18_columns_that_are_passed_over_have_a_name() -> None:
    with opened(frame().to_csv().encode()) as fd:
        assert parse.head(fd).unknown == ("(without a name)",)
    with opened(text([(*row, "") for row in ROWS], (*COLUMNS, "")).encode()) as fd:
        assert parse.head(fd).unknown == ()
