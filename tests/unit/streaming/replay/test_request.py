"""A replay's parameters, by the active generation's zone and its rules."""
# ruff: noqa: DTZ001 - moments without a zone are what is tested.

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from contracts.zones import ZoneRules
from streaming.engine.pipeline import Parameters
from streaming.replay.errors import RequestRefused
from streaming.replay.request import Range, Request, grace

HOUR = timedelta(hours=1)
# As if summer time had been given up for good when the generation was made.
OTHER = ZoneRules("Europe/Berlin", (693_000,), (3600,))


def asked(**more: object) -> Request:
    return Request("top-sales-by-city", "a test", "a test", **more)  # type: ignore[arg-type]


def active(zone: str, rules: ZoneRules | None = None) -> Parameters:
    return Parameters(zone, HOUR, "1-day", rules)


@pytest.mark.parametrize(
    ("zone", "start", "moment"),
    [
        ("Pacific/Auckland", datetime(2026, 7, 1), datetime(2026, 6, 30, 12, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 3, 29), datetime(2026, 3, 28, 23, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 3, 29, 12), datetime(2026, 3, 29, 10, tzinfo=UTC)),
        ("America/Sao_Paulo", datetime(2018, 11, 4), datetime(2018, 11, 4, 3, tzinfo=UTC)),
        ("UTC", datetime(2026, 7, 1), datetime(2026, 7, 1, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)),
    ],
)
def test_row_33_a_range_without_a_zone_is_by_the_active_generations_clocks(
    zone: str, start: datetime, moment: datetime
) -> None:
    found = asked(range=Range(start, start + timedelta(days=40))).within(active(zone)).range
    assert found is not None
    assert found.start == moment
    assert found.end.tzinfo is not None


def test_row_33_a_range_is_by_the_rules_that_the_generation_was_made_with() -> None:
    found = asked(range=Range(datetime(2026, 7, 1), datetime(2026, 7, 2))).within(
        active("Europe/Berlin", OTHER)
    )
    assert found.range == Range(datetime(2026, 6, 30, 23, tzinfo=UTC), datetime(2026, 7, 1, 23, tzinfo=UTC))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2026, 7, 2), datetime(2026, 7, 1)),
        (datetime(2026, 7, 1), datetime(2026, 7, 1)),
        (datetime(1, 1, 1), datetime(2026, 7, 1)),
        (datetime(2026, 7, 1, 1), datetime(2026, 6, 30, 16, tzinfo=UTC)),
    ],
)
def test_a_range_that_cannot_be_is_refused(start: datetime, end: datetime) -> None:
    with pytest.raises(RequestRefused, match="a range"):
        asked(range=Range(start, end)).within(active("Asia/Tokyo"))


def test_row_30_rules_stay_unless_a_zone_is_named() -> None:
    """So a replay of what is active comes out the same, and one that names the zone takes over what it is now."""
    before = active("Europe/Berlin", OTHER)
    assert asked().parameters(before).rules == OTHER
    assert asked(grace=timedelta(0)).parameters(before).rules == OTHER
    now = asked(time_zone="Europe/Berlin").parameters(before)
    assert now.rules == ZoneRules.of_machine("Europe/Berlin")
    assert before.is_outdated
    assert not now.is_outdated


@pytest.mark.parametrize("seconds", [3e11, float("nan"), float("inf"), -1.0])
def test_row_32_a_grace_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(RequestRefused, match="at least 0 and at most"):
        grace(seconds)
    with pytest.raises(RequestRefused, match="at least 0 and at most"):
        asked(grace=timedelta(days=367)).check()
    with pytest.raises(RequestRefused, match="no time zone"):
        asked(time_zone="Europe").check()
