"""Windows are half-open, touch each other, and hold their civil days, in every zone."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.calendar import FIRST_DAY, LAST_DAY, Calendar
from streaming.engine.windows import assign, assigner, from_micros, to_micros

KINDS = st.sampled_from(["1-day", "30-days", "calendar-month"])
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/St_Johns", "America/Sao_Paulo", "Pacific/Apia", "Asia/Kathmandu"]
)


@pytest.mark.parametrize(
    ("calendar", "day", "start", "end"),
    [
        (Calendar("1-day", "Europe/Berlin"), date(2026, 3, 29), "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
        # A skipped midnight is the moment of the skip.
        (Calendar("1-day", "America/Sao_Paulo"), date(2018, 11, 4), "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
        (Calendar("30-days", "UTC"), date(1970, 1, 30), "1970-01-01T00:00Z", "1970-01-31T00:00Z"),
        (Calendar("calendar-month", "UTC"), date(2024, 2, 29), "2024-02-01T00:00Z", "2024-03-01T00:00Z"),
    ],
)
def test_a_window_is_civil_days_30_days_from_the_epoch_or_a_month(
    calendar: Calendar, day: date, start: str, end: str
) -> None:
    window = calendar.window_of(day)
    assert (window.start, window.end) == (datetime.fromisoformat(start), datetime.fromisoformat(end))


@pytest.mark.parametrize("day", [FIRST_DAY - timedelta(days=1), LAST_DAY])
def test_a_day_out_of_range_is_refused(day: date) -> None:
    with pytest.raises(ValueError, match="is not between"):
        Calendar("1-day", "UTC").window_of(day)


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
    window_of = assigner(calendar)
    assert [window_of(to_micros(moment)) for moment in moments] == windows.rows()


@given(kind=KINDS, zone=ZONES, day=st.dates(date(1950, 1, 1), date(2100, 1, 1)))
def test_neighbours_touch_and_their_bound_belongs_to_the_later_window(
    kind: str, zone: str, day: date
) -> None:
    calendar = Calendar(kind, zone)  # type: ignore[arg-type]
    window = calendar.window_of(day)
    after = window.end.astimezone(ZoneInfo(zone)).date()
    assert calendar.window_of(after).start == window.end
    if window.start == window.end:
        return  # Apia skipped a whole day in 2011: that window is empty
    moments = [to_micros(window.start), to_micros(window.end) - 1, to_micros(window.end)]
    starts = assign(pl.Series(moments, dtype=pl.Int64), calendar)["window_start"].to_list()
    assert starts == [moments[0], moments[0], moments[2]]
    window_of = assigner(calendar)
    assert [window_of(moment)[0] for moment in moments] == starts
