"""Windows are half-open, touch each other, and hold their civil days, in every zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.calendar import FIRST_DAY, LAST_DAY, Calendar
from streaming.engine.windows import assign, from_micros, to_micros

KINDS = st.sampled_from(["1-day", "30-days", "calendar-month"])
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/St_Johns", "America/Sao_Paulo", "Pacific/Apia", "Asia/Kathmandu"]
)


def test_a_city_window_is_one_civil_day() -> None:
    window = Calendar("1-day", "Europe/Berlin").window_of(date(2026, 3, 29))
    assert (window.start, window.end) == (
        datetime(2026, 3, 28, 23, tzinfo=UTC),
        datetime(2026, 3, 29, 22, tzinfo=UTC),
    )


def test_thirty_days_are_counted_from_the_epoch() -> None:
    window = Calendar("30-days", "UTC").window_of(date(1970, 1, 30))
    assert (window.start.date(), window.end.date()) == (date(1970, 1, 1), date(1970, 1, 31))


def test_a_month_is_a_month() -> None:
    window = Calendar("calendar-month", "UTC").window_of(date(2024, 2, 29))
    assert (window.start.date(), window.end.date()) == (date(2024, 2, 1), date(2024, 3, 1))


def test_a_skipped_midnight_is_the_moment_of_the_skip() -> None:
    window = Calendar("1-day", "America/Sao_Paulo").window_of(date(2018, 11, 4))
    assert window.start == datetime(2018, 11, 4, 3, tzinfo=UTC)
    assert window.end - window.start == timedelta(hours=23)


@pytest.mark.parametrize("day", [FIRST_DAY - timedelta(days=1), LAST_DAY])
def test_a_day_out_of_range_is_refused(day: date) -> None:
    with pytest.raises(ValueError, match="is not between"):
        Calendar("1-day", "UTC").window_of(day)


@given(kind=KINDS, zone=ZONES, day=st.dates(date(1950, 1, 1), date(2100, 1, 1)))
def test_neighbours_touch(kind: str, zone: str, day: date) -> None:
    calendar = Calendar(kind, zone)  # type: ignore[arg-type]
    window = calendar.window_of(day)
    after = window.end.astimezone(ZoneInfo(zone)).date()
    assert calendar.window_of(after).start == window.end


@given(
    kind=KINDS,
    zone=ZONES,
    moments=st.lists(
        st.integers(-(20 * 366 * 86_400_000_000), 130 * 365 * 86_400_000_000).map(from_micros),
        min_size=1,
        max_size=20,
    ),
)
def test_every_moment_is_in_one_window(kind: str, zone: str, moments: list[datetime]) -> None:
    calendar = Calendar(kind, zone)  # type: ignore[arg-type]
    windows = assign(pl.Series([to_micros(moment) for moment in moments], dtype=pl.Int64), calendar)
    for moment, start, end in zip(moments, *windows.get_columns(), strict=True):
        assert from_micros(start) <= moment < from_micros(end)


@given(kind=KINDS, zone=ZONES, day=st.dates(date(1950, 1, 1), date(2100, 1, 1)))
def test_bounds_belong_to_the_later_window(kind: str, zone: str, day: date) -> None:
    calendar = Calendar(kind, zone)  # type: ignore[arg-type]
    window = calendar.window_of(day)
    if window.start == window.end:
        return  # Apia skipped a whole day in 2011: that window is empty
    starts = [to_micros(window.start), to_micros(window.end) - 1, to_micros(window.end)]
    found = assign(pl.Series(starts, dtype=pl.Int64), calendar)["window_start"].to_list()
    assert found[:2] == [starts[0]] * 2
    assert found[2] == starts[2]
