"""What replays are for: a defect mended, another calendar or zone; against a plain recomputation of the events."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from sqlalchemy import select

from contracts.differences import changes
from contracts.tables import city_totals
from streaming import pipelines
from streaming.engine.pipeline import Check
from streaming.replay import building, promotion
from streaming.replay.barrier import held
from streaming.replay.errors import Refused
from streaming.replay.request import Range
from tests.integration.streaming.ground import START, Totals
from tests.integration.streaming.replay.test_replay import Live, live

__all__ = ["live"]

# What the defective version takes for impossible.
LIMIT = Decimal(500)


def damaged(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if abs(event["amount"]) < LIMIT]


def grouped(events: list[dict[str, Any]]) -> Totals:
    totals: dict[tuple[str, ...], tuple[Decimal, int]] = defaultdict(lambda: (Decimal(0), 0))
    for event in events:
        key = (event["sold_at"].date().isoformat(), event["country"], event["city"], event["currency"])
        total, count = totals[key]
        totals[key] = (total + event["amount"], count + (1 if event["operation"] == "SALE" else -1))
    return {key: value for key, value in totals.items() if value[1]}


@pytest.fixture
def defective(live: Live, monkeypatch: pytest.MonkeyPatch) -> Live:
    """Version 1 refuses what it should not; version 2 is mended, and what a new generation is pinned to."""
    mended = replace(live.ground.pipeline, version=2)
    (source,) = mended.inputs
    defect = Check("is impossible", pl.col("amount").abs() < LIMIT, ("amount",))
    name = live.ground.pipeline.name
    broken = replace(mended, version=1, inputs=(replace(source, checks=(*source.checks, defect)),))
    monkeypatch.setitem(pipelines.PIPELINES, (name, 1), broken)
    monkeypatch.setitem(pipelines.PIPELINES, (name, 2), mended)
    monkeypatch.setitem(pipelines.CURRENT, name, 2)
    return live


def test_a_mended_defect_differs_by_exactly_the_damage(defective: Live) -> None:
    live, ground = defective, defective.ground
    ground.feed(2000)
    with live.running():
        assert live.build().version == 2
        # What the defect does goes on while the mended one waits.
        ground.feed(500)
        live.settled(2)
        found = live.compare(2)
        before, after = grouped(damaged(ground.events)), grouped(ground.events)
        with ground.results.connect() as connection:
            rows = list(changes(connection, found.shape, found.id))
        told = {
            (row.window_start.date().isoformat(), *(row.group[c] for c in ("country", "city", "currency"))): (
                row.before and (Decimal(row.before["total"]), row.before["sales_count"]),
                row.after and (Decimal(row.after["total"]), row.after["sales_count"]),
            )
            for row in rows
            if row.window_start is not None
        }
        assert told == {
            key: (before.get(key), after.get(key))
            for key in before.keys() | after.keys()
            if before.get(key) != after.get(key)
        }
        assert len(told) > 50
        for number, other in ((2, 1), (1, 2), (2, 1)):
            if number == 1:
                promotion.rollback(
                    ground.kafka,
                    ground.results,
                    ground.pipeline.name,
                    1,
                    reason="r",
                    approved_by="t",
                    hold=held,
                )
            else:
                live.promote(2, live.compare(2).fingerprint)
            ground.feed(100)
            live.settled(2)
            assert (live.state(number), live.state(other)) == ("active", "standby")


def test_a_range_that_is_not_kept_is_refused_and_shown(defective: Live) -> None:
    live = defective
    live.ground.feed(800)
    day = START + timedelta(days=1)
    with live.running():
        live.build(live.request(range=Range(day, day + timedelta(days=1))))
        live.settled(2)
        found = live.compare(2)
        assert found.outside > 0
        with pytest.raises(Refused, match="outside of its range"):
            live.promote(2, found.fingerprint)
        assert live.state(1) == "active"


@pytest.mark.parametrize(
    ("calendar", "zone", "grace"), [("calendar-month", "UTC", 0), ("1-day", "Asia/Kathmandu", 86_400)]
)
def test_another_calendar_zone_and_grace_equal_a_plain_recomputation(
    live: Live, calendar: str, zone: str, grace: int
) -> None:
    ground = live.ground
    ground.feed(1500)
    with live.running():
        live.build(live.request(calendar=calendar, time_zone=zone, grace=timedelta(seconds=grace)))
        live.promote(2, live.compare(2).fingerprint)
        ground.feed(200)
        of = city_totals.c
        expected: dict[tuple[Any, ...], tuple[Decimal, int]] = defaultdict(lambda: (Decimal(0), 0))
        for event in ground.events:
            local = event["sold_at"].astimezone(ZoneInfo(zone))
            day = local.date().replace(day=1) if calendar == "calendar-month" else local.date()
            start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)
            key = (start, event["country"], event["city"], event["currency"])
            total, count = expected[key]
            expected[key] = (total + event["amount"], count + (1 if event["operation"] == "SALE" else -1))

        def shown() -> dict[tuple[Any, ...], tuple[Decimal, int]]:
            wanted = select(of.window_start, of.country, of.city, of.currency, of.total, of.sales_count)
            with ground.results.connect() as connection:
                rows = connection.execute(wanted.where(of.generation == 2)).all()
            return {(r.window_start, r.country, r.city, r.currency): (r.total, r.sales_count) for r in rows}

        live.until(lambda: shown() == dict(expected))


def test_bad_requests_are_refused_in_one_line_and_make_nothing(live: Live) -> None:
    day = START + timedelta(days=1)
    windows = Range(day, day + timedelta(days=1))
    refused = {
        "has no version 9": live.request(version=9),
        "there is no pipeline nobody": replace(live.request(), pipeline="nobody"),
        "a replay needs a reason": live.request(" "),
        "has no range, but grace came with one": live.request(range=windows, grace=timedelta(hours=2)),
        "there is no time zone Mars": live.request(time_zone="Mars"),
        "there is no calendar weeks": live.request(calendar="weeks"),
        "a range ends after it starts": live.request(range=Range(windows.end, windows.start)),
    }
    for line, request in refused.items():
        with pytest.raises(Refused, match=line):
            building.begin(live.ground.kafka, live.ground.results, request)
    assert live.numbers() == [1]
