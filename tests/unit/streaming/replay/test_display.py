"""A difference as a person reads it before approving it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from rich.console import Console

from contracts.differences import Change
from streaming.replay import display
from streaming.replay.difference import Difference

AT = datetime(2026, 10, 30, 18, 15, tzinfo=UTC)
FOUND = Difference(
    1, "top-sales-by-city", 2, 1, 1, 1, 1, {0: 9}, "f00", 0, 0, 1, 5, {"EUR": "1"}, {"EUR": "2"}, 0, AT
)
GROUP = {"country": "DE", "city": "Frankfurt am Main", "currency": "EUR"}
BEFORE, AFTER = {"total": "11799.8400"}, {"total": "-1234567.8900"}
AMOUNT, SHARE = Decimal("-1246367.7300"), Decimal("-0.223522")
CHANGE = Change(AT, AT + timedelta(days=1), GROUP, "changed", BEFORE, AFTER, 3, 12, AMOUNT, SHARE)


@pytest.mark.parametrize("width", [100, 200])
def test_no_number_is_cut_off_or_broken_where_it_is_narrow(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(display.difference(FOUND, [CHANGE]))
    for number in ("11,799.8400", "-1,234,567.8900", "-1,246,367.7300", "-22.3522%", "3 → 12"):
        assert number in out.getvalue()
