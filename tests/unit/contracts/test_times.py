"""How moments are written: what names one moment is taken, what may name two is refused with a hint."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import times
from contracts.texts import Refused

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def moment(text: str) -> datetime:
    return times.EPOCH + times.micros(text) * times.MICROSECOND


@given(
    st.datetimes(datetime(1900, 1, 2), datetime(2199, 12, 30)),  # noqa: DTZ001
    st.integers(-959, 959),
    st.sampled_from(["auto", "minutes", "seconds", "microseconds"]),
)
def test_what_python_writes_is_read(at: datetime, offset: int, precision: str) -> None:
    written = at.replace(tzinfo=timezone(timedelta(minutes=offset))).isoformat(timespec=precision)
    assert moment(written) == datetime.fromisoformat(written)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z", "2026-01-31t12:00:00z", "2026-01-31 12:00", "2026-01-31 12:00:00 UTC",
        "2026-01-31T12:00:00.0000000Z", "2026-01-31 12:00:00.000000000", "2026-01-31T12:00:00,0Z",
        "2026-01-31T13:00:00+0100", "2026-01-31T13:00:00+01", "2026-01-31 13:00:00.0000000 +01:00",
        "2026-01-31T17:30:00+05:30", "2026-01-31T12:00:00-00:00", " 2026-01-31T12:00:00Z\xa0",
    ],
)  # fmt: skip
def test_row_18_one_moment_in_many_forms(text: str) -> None:
    assert moment(text) == NOON


@pytest.mark.parametrize("digits", ["9999999", "999999999", "9999999999999"])
def test_row_18_a_fraction_is_cut_so_that_a_moment_stays_in_its_window(digits: str) -> None:
    assert moment(f"2026-01-31T23:59:59.{digits}Z") == datetime(2026, 1, 31, 23, 59, 59, 999_999, UTC)
    assert moment(f"1960-01-31T23:59:59.{digits}Z") == datetime(1960, 1, 31, 23, 59, 59, 999_999, UTC)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2026-01-31", "it has no time of day"),
        ("31.01.2026 23:59", "the year stands first, then the month"),
        ("1/31/2026 11:59 PM", "the year stands first, then the month"),
        ("31-JAN-26 11.59.59.123456 PM", "the year stands first, then the month"),
        ("2026-01-31 11:59 PM", "hours count to 23"),
        ("2026-01-31T24:00:00Z", "24:00 is 00:00 of the next day"),
        ("2016-12-31T23:59:60Z", "no minute has a second 60 here"),
        ("46053.999", "it is a bare number"),
        ("1769904000", "it is a bare number"),
        ("2026-02-30T10:00:00Z", "there is no day 2026-02-30"),
        ("2026-01-31T1\u0663:00:00Z", "it holds U+0663 ARABIC-INDIC DIGIT THREE"),
    ],
)
def test_what_may_mean_two_things_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(Refused) as refused:
        times.micros(text)
    assert str(refused.value) == f"is no time like {times.EXAMPLE}: {hint}"


@pytest.mark.parametrize("text", ["1899-12-31T23:59:59Z", "2200-01-01T00:00:00Z"])
def test_what_no_calendar_has_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is not between 1900-01-01 and 2200-01-01"):
        times.micros(text)
