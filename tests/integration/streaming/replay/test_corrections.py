"""What replays are for: a defect mended, another calendar or zone; against a plain recomputation of the events."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import select

from contracts.calendar import CalendarKind
from contracts.differences import WINDOW, changes
from contracts.settings import ResultsDbSettings
from contracts.tables import metadata
from stack.embedded import Embedded
from streaming import pipelines
from streaming.engine.pipeline import Check, Parameters
from streaming.replay import build
from streaming.replay.errors import RequestRefused
from streaming.replay.request import Range
from tests.integration.streaming.ground import START, Ground, Totals, wait_until
from tests.integration.streaming.replay.test_replay import Live, live
from tests.pipelines.histories import oracle, window_of

__all__ = ["live"]

# What the defective version takes for impossible.
LIMIT = Decimal(500)
# Of a result; the last two depend on the grace.
COMPARED = ("total", "sales_count", "late_count", "late_amount")
# When events are recorded, from the end of grace on.
AROUND = [timedelta(microseconds=us) for us in (-1, 0, 1)] + [timedelta(minutes=m) for m in (-30, 30, 6_000)]

Rows = dict[tuple[Any, ...], tuple[Any, ...]]


@pytest.fixture
def ground(
    request: pytest.FixtureRequest, stack: Embedded, results_db: ResultsDbSettings, tmp_path: Path
) -> Iterator[Ground]:
    """Of the pipeline that a test names."""
    name = getattr(request, "param", "top-sales-by-city")
    made = Ground(stack.kafka, results_db.results_db_url.get_secret_value(), tmp_path, name)
    yield made
    made.close()


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
                live.rollback(1)
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
        with pytest.raises(RequestRefused, match="outside of its range"):
            live.promote(2, found.fingerprint)
        assert live.state(1) == "active"


def around(live: Live, parameters: Parameters, count: int) -> list[dict[str, Any]]:
    """Events around the moment from which one counts as late with these parameters, to the microsecond."""
    events = [live.ground._event() for _ in range(count)]
    for event, after in zip(events, itertools.cycle(AROUND), strict=False):
        _, end = window_of(event["sold_at"], parameters)
        event["recorded_at"] = end + parameters.grace + after
    return events


def totals(live: Live, parameters: Parameters) -> Rows:
    """A plain GROUP BY of all events."""
    found = oracle(live.ground.pipeline, parameters, live.ground.events).values()
    return {key_of(live, total): tuple(total[name] for name in COMPARED) for total in found}


def shown(live: Live, number: int) -> Rows:
    table = metadata.tables[live.ground.pipeline.table]
    with live.ground.results.connect() as connection:
        rows = connection.execute(select(table).where(table.c.generation == number)).mappings().all()
    return {key_of(live, row): tuple(row[name] for name in COMPARED) for row in rows}


def key_of(live: Live, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in (*WINDOW, *live.ground.pipeline.group_by))


def is_late(rows: Rows) -> list[int]:
    return [row[COMPARED.index("late_count")] for row in rows.values()]


@pytest.mark.parametrize(
    ("ground", "calendar", "zone", "grace"),
    [
        ("top-salesman-by-country", "calendar-month", "UTC", 0),
        ("top-sales-by-city", "1-day", "Asia/Kathmandu", 86_400),
    ],
    indirect=["ground"],
)
def test_another_calendar_zone_and_grace_equal_a_plain_recomputation(
    live: Live, calendar: CalendarKind, zone: str, grace: int
) -> None:
    parameters = Parameters(zone, timedelta(seconds=grace), calendar)
    former = replace(parameters, grace=live.ground.generation.parameters.grace)
    live.ground.feed(1000)
    live.feed(around(live, parameters, 500))
    late = is_late(totals(live, parameters))
    assert sum(late) > 100
    assert late != is_late(totals(live, former)), "the former grace would show"
    with live.running():
        live.build(live.request(calendar=calendar, time_zone=zone, grace=parameters.grace))
        wait_until(lambda: shown(live, 2) == totals(live, parameters), what="what was replayed")
        live.promote(2, live.compare(2).fingerprint)
        live.feed(around(live, parameters, 200))
        wait_until(lambda: shown(live, 2) == totals(live, parameters), what="what came after")


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
        with pytest.raises(RequestRefused, match=line):
            build.begin(live.ground.kafka, live.ground.results, request)
    assert live.numbers() == [1]
