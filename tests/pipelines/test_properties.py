"""Whatever the batching, the workers, the partitions and the aborts: the answer is the GROUP BY of the events."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.calendar import CalendarKind
from streaming.engine.pipeline import Parameters, Pipeline
from streaming.pipelines import CURRENT, PIPELINES
from streaming.testing import Driver
from tests.support.drivers import work_through
from tests.support.histories import histories, oracle

# Those that answer with a GROUP BY over windows; the join has tests of its own.
WINDOWED = [pipeline for item in CURRENT.items() if (pipeline := PIPELINES[item]).calendar is not None]
EVERY_PIPELINE = pytest.mark.parametrize("pipeline", WINDOWED, ids=[found.name for found in WINDOWED])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"])
CALENDARS: st.SearchStrategy[CalendarKind] = st.sampled_from(["1-day", "30-days", "calendar-month"])


def parameters_of(pipeline: Pipeline, zone: str, calendar: CalendarKind | None = None) -> Parameters:
    own = pipeline.calendar
    assert own is not None
    return Parameters(zone, timedelta(hours=1), calendar or own)


def worked(
    pipeline: Pipeline, parameters: Parameters, events: list[dict[str, Any]], seed: int, **options: int
) -> Driver:
    """Over all events, cut as the seed orders."""
    driver = Driver(pipeline, parameters, **options)
    for event in events:
        driver.event(event)
    work_through(driver, random.Random(seed))
    return driver


@EVERY_PIPELINE
@given(data=st.data(), events=histories(), zone=ZONES, calendar=st.none() | CALENDARS, seed=st.integers())
def test_totals_are_the_group_by_however_the_work_was_cut(
    pipeline: Pipeline,
    data: st.DataObject,
    events: list[dict[str, Any]],
    zone: str,
    calendar: CalendarKind | None,
    seed: int,
) -> None:
    parameters = parameters_of(pipeline, zone, calendar)
    options = {
        "input_partitions": st.integers(1, 7),
        "state_partitions": st.integers(1, 4),
        "workers": st.integers(1, 3),
    }
    driver = worked(pipeline, parameters, events, seed, **data.draw(st.fixed_dictionaries(options)))
    assert driver.totals() == oracle(pipeline, parameters, events)


@EVERY_PIPELINE
@given(events=histories(), seed=st.integers(), cut=st.integers(1, 7))
def test_what_is_delivered_again_counts_once(
    pipeline: Pipeline, events: list[dict[str, Any]], seed: int, cut: int
) -> None:
    order = random.Random(seed)
    driver = Driver(pipeline, parameters_of(pipeline, "UTC"), input_partitions=1)
    delivered = 0
    for position in range(len(events)):
        first = max(0, position - order.randint(0, 5)) if order.random() < 0.3 else position + 1
        for event in [events[position], *events[first : position + 1]]:
            driver.event(event)
            delivered += 1
    while driver.combine(0, cut):
        pass
    driver.run()
    progress = driver.progress(0)
    assert driver.totals() == oracle(pipeline, parameters_of(pipeline, "UTC"), events)
    assert (progress.events, progress.duplicates) == (delivered, delivered - len(events))


@EVERY_PIPELINE
@given(events=histories(), seed=st.integers(), cuts=st.lists(st.integers(1, 5), min_size=1))
def test_late_facts_are_counted_told_and_depend_on_the_event_alone(
    pipeline: Pipeline, events: list[dict[str, Any]], seed: int, cuts: list[int]
) -> None:
    parameters = parameters_of(pipeline, "Europe/Berlin")
    driver = worked(pipeline, parameters, events, seed)
    expected = oracle(pipeline, parameters, events)
    late = driver.late_events()
    assert len(late) == sum(total["late_count"] for total in expected.values())
    assert sum(driver.progress(p).late for p in range(driver.log.partitions)) == len(late)
    for record in late:
        event = driver.event_codec.decode(record["event"])
        assert event["recorded_at"] >= record["window_end"] + parameters.grace
        assert record["window_start"] <= event["sold_at"] < record["window_end"]
