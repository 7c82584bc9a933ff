"""Cells of a CSV that a spreadsheet opens."""

from __future__ import annotations

import pytest

from contracts.differences import as_data


@pytest.mark.parametrize(
    "cell", ["=1+1", "+49 30", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-", "=", "--1"]
)
def test_what_would_be_run_gets_a_quote(cell: str) -> None:
    assert as_data(cell) == f"'{cell}"


@pytest.mark.parametrize(
    "cell", ["-19.9900", "-7", "1.5", "Berlin", "Aix-en-Provence", "", None, 3, "'=1", "a=b"]
)
def test_anything_else_stays_as_it_is(cell: object) -> None:
    assert as_data(cell) == cell
