"""What replays are for: a defect mended, another calendar or zone; against a plain recomputation of the events."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from contracts.calendar import CalendarKind
from contracts.differences import WINDOW, changes
from contracts.settings import ResultsDbSettings
from contracts.tables import metadata
from stack.embedded import Embedded
from streaming import pipelines
from streaming.engine.expressions import Amount
from streaming.engine.pipeline import Check, Parameters
from streaming.replay import build
from streaming.replay.errors import RequestRefused
from streaming.replay.request import Range
from tests.support.histories import oracle, window_of
from tests.support.live_harness import LiveHarness
from tests.support.pipeline_harness import START, PipelineHarness, grouped
from tests.support.waiting import wait_until

# What the defective version takes for impossible.
LIMIT = Decimal(500)
# Of a result; the last two depend on the grace.
COMPARED = ("total", "sales_count", "late_count", "late_amount")
# When events are recorded, from the end of grace on.
AROUND = [timedelta(microseconds=us) for us in (-1, 0, 1)] + [timedelta(minutes=m) for m in (-30, 30, 6_000)]

Rows = dict[tuple[Any, ...], tuple[Any, ...]]


@pytest.fixture
def harness(
    request: pytest.FixtureRequest, stack: Embedded, results_db: ResultsDbSettings, tmp_path: Path
) -> Iterator[PipelineHarness]:
    """Of the pipeline that a test names."""
    name = getattr(request, "param", "top-sales-by-city")
    made = PipelineHarness(stack.kafka, results_db.results_db_url.get_secret_value(), tmp_path, name)
    yield made
    made.close()


def damaged(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if abs(event["amount"]) < LIMIT]


@pytest.fixture
def defective(live: LiveHarness, monkeypatch: pytest.MonkeyPatch) -> LiveHarness:
    """Version 1 refuses what it should not; version 2 is mended, and what a new generation is pinned to."""
    mended = replace(live.harness.pipeline, version=2)
    (source,) = mended.inputs
    defect = Check("is impossible", Amount("amount").absolute < LIMIT)
    name = live.harness.pipeline.name
    broken = replace(mended, version=1, inputs=(replace(source, checks=(*source.checks, defect)),))
    monkeypatch.setitem(pipelines.PIPELINES, (name, 1), broken)
    monkeypatch.setitem(pipelines.PIPELINES, (name, 2), mended)
    monkeypatch.setitem(pipelines.CURRENT, name, 2)
    return live


@pytest.mark.soak
def test_a_mended_defect_differs_by_exactly_the_damage(defective: LiveHarness) -> None:
    live, harness = defective, defective.harness
    harness.feed(2000)
    with live.running():
        assert live.build().version == 2
        # What the defect does goes on while the mended one waits.
        harness.feed(500)
        live.settled(2)
        found = live.compare(2)
        before, after = grouped(damaged(harness.events)), grouped(harness.events)
        with harness.results.connect() as connection:
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
            harness.feed(100)
            live.settled(2)
            assert (live.state(number), live.state(other)) == ("active", "standby")


@pytest.mark.soak
def test_a_range_that_is_not_kept_is_refused_and_shown(defective: LiveHarness) -> None:
    live = defective
    live.harness.feed(800)
    day = START + timedelta(days=1)
    with live.running():
        live.build(live.request(range=Range(day, day + timedelta(days=1))))
        live.settled(2)
        found = live.compare(2)
        assert found.outside > 0
        with pytest.raises(RequestRefused, match="outside of its range"):
            live.promote(2, found.fingerprint)
        assert live.state(1) == "active"


def around(live: LiveHarness, parameters: Parameters, count: int) -> list[dict[str, Any]]:
    """Events around the moment from which one counts as late with these parameters, to the microsecond."""
    events = [live.harness._event() for _ in range(count)]
    for event, after in zip(events, itertools.cycle(AROUND), strict=False):
        _, end = window_of(event["sold_at"], parameters)
        event["recorded_at"] = end + parameters.grace + after
    return events


def totals(live: LiveHarness, parameters: Parameters) -> Rows:
    """A plain GROUP BY of all events."""
    found = oracle(live.harness.pipeline, parameters, live.harness.events).values()
    return {key_of(live, total): tuple(total[name] for name in COMPARED) for total in found}


def shown(live: LiveHarness, number: int) -> Rows:
    table = metadata.tables[live.harness.pipeline.table]
    with live.harness.results.connect() as connection:
        rows = connection.execute(select(table).where(table.c.generation == number)).mappings().all()
    return {key_of(live, row): tuple(row[name] for name in COMPARED) for row in rows}


def key_of(live: LiveHarness, row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in (*WINDOW, *live.harness.pipeline.group_by))


def is_late(rows: Rows) -> list[int]:
    return [row[COMPARED.index("late_count")] for row in rows.values()]


@pytest.mark.parametrize(
    ("harness", "calendar", "zone", "grace"),
    [
        pytest.param("top-salesman-by-country", "calendar-month", "UTC", 0, marks=pytest.mark.soak),
        ("top-sales-by-city", "1-day", "Asia/Kathmandu", 86_400),
    ],
    indirect=["harness"],
)
def test_another_calendar_zone_and_grace_equal_a_plain_recomputation(
    live: LiveHarness, calendar: CalendarKind, zone: str, grace: int
) -> None:
    parameters = Parameters(zone, timedelta(seconds=grace), calendar)
    former = replace(parameters, grace=live.harness.generation.parameters.grace)
    live.harness.feed(1000)
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


def test_bad_requests_are_refused_in_one_line_and_make_nothing(live: LiveHarness) -> None:
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
            build.begin(live.harness.kafka, live.harness.results, request)
    assert live.numbers() == [1]
