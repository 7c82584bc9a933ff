"""Whatever the batching, the workers, the partitions and the aborts: the answer is the GROUP BY of the events."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.engine.pipeline import Parameters, Pipeline
from streaming.pipelines import CURRENT, PIPELINES
from streaming.testing import Driver
from tests.support.histories import histories, oracle

# Those that answer with a GROUP BY over windows; the join has tests of its own.
WINDOWED = [pipeline for item in CURRENT.items() if (pipeline := PIPELINES[item]).calendar is not None]
EVERY_PIPELINE = pytest.mark.parametrize("pipeline", WINDOWED, ids=[found.name for found in WINDOWED])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"])


def parameters_of(pipeline: Pipeline, zone: str, calendar: str | None = None) -> Parameters:
    return Parameters(zone, timedelta(hours=1), calendar or pipeline.calendar)  # type: ignore[arg-type]


def work_through(driver: Driver, order: random.Random) -> None:
    """Take steps in any order, cut anywhere, aborted or committed, until nothing is left."""
    while True:
        left = [
            (move, partition)
            for move, log, progress in (
                (driver.combine, driver.log, driver.progress),
                (driver.merge, driver.partials, driver.merge_progress),
            )
            for partition in range(log.partitions)
            if log.after(partition, progress(partition).next_offset)
        ]
        if not left:
            return
        move, partition = order.choice(left)
        move(partition, order.randint(1, 9), commit=order.random() > 0.3)


@EVERY_PIPELINE
@given(data=st.data(), events=histories(), zone=ZONES, seed=st.integers())
def test_totals_are_the_group_by_however_the_work_was_cut(
    pipeline: Pipeline, data: st.DataObject, events: list[dict[str, Any]], zone: str, seed: int
) -> None:
    parameters = parameters_of(pipeline, zone)
    driver = Driver(
        pipeline,
        parameters,
        input_partitions=data.draw(st.integers(1, 5)),
        state_partitions=data.draw(st.integers(1, 4)),
        workers=data.draw(st.integers(1, 3)),
    )
    for event in events:
        driver.event(event)
    work_through(driver, random.Random(seed))
    assert driver.totals() == oracle(pipeline, parameters, events)


@EVERY_PIPELINE
@given(events=histories(), seed=st.integers())
def test_the_order_between_partitions_does_not_matter(
    pipeline: Pipeline, events: list[dict[str, Any]], seed: int
) -> None:
    parameters = parameters_of(pipeline, "UTC")
    by_sale: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        by_sale[event["sale_id"]].append(event)
    driver = Driver(pipeline, parameters, input_partitions=len(by_sale) or 1)
    for partition, of_sale in enumerate(by_sale.values()):
        for event in of_sale:
            driver.event(event, partition)
    work_through(driver, random.Random(seed))
    assert driver.totals() == oracle(pipeline, parameters, events)


@EVERY_PIPELINE
@given(events=histories(), seed=st.integers(), cut=st.integers(1, 7))
def test_what_is_delivered_again_counts_once(
    pipeline: Pipeline, events: list[dict[str, Any]], seed: int, cut: int
) -> None:
    order = random.Random(seed)
    driver = Driver(pipeline, parameters_of(pipeline, "UTC"), input_partitions=1)
    delivered = 0
    for position, event in enumerate(events):
        driver.event(event)
        delivered += 1
        if order.random() < 0.3:
            for again in events[max(0, position - order.randint(0, 5)) : position + 1]:
                driver.event(again)
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
    driver = Driver(pipeline, parameters)
    for event in events:
        driver.event(event)
    work_through(driver, random.Random(seed))
    expected = oracle(pipeline, parameters, events)
    told = driver.late_events()
    assert len(told) == sum(total["late_count"] for total in expected.values())
    assert sum(driver.progress(p).late for p in range(driver.log.partitions)) == len(told)
    for record in told:
        event = driver.event_codec.decode(record["event"])
        assert event["recorded_at"] >= record["window_end"] + parameters.grace
        assert record["window_start"] <= event["sold_at"] < record["window_end"]


@EVERY_PIPELINE
@given(events=histories(), seed=st.integers())
def test_a_history_and_its_reversal_leave_groups_of_zero(
    pipeline: Pipeline, events: list[dict[str, Any]], seed: int
) -> None:
    parameters = parameters_of(pipeline, "UTC")
    driver = Driver(pipeline, parameters)
    last = {"postgres": 10_000, "csv": 10_000}
    back = []
    for event in reversed(events):
        last[event["source"]] += 1
        other = "REVERSAL" if event["operation"] == "SALE" else "SALE"
        back.append(
            event
            | {
                "operation": other,
                "seq": last[event["source"]],
                "amount": -event["amount"],
                "quantity": -event["quantity"],
            }
        )
    for event in [*events, *back]:
        driver.event(event)
    work_through(driver, random.Random(seed))
    for total in driver.totals().values():
        assert (total["total"], total["sales_count"], total["late_amount"]) == (0, 0, 0)


@given(events=histories(), zone=ZONES, calendar=st.sampled_from(["1-day", "30-days", "calendar-month"]))
def test_every_calendar_in_every_zone(events: list[dict[str, Any]], zone: str, calendar: str) -> None:
    pipeline = PIPELINES[("top-sales-by-city", 1)]
    parameters = parameters_of(pipeline, zone, calendar)
    driver = Driver(pipeline, parameters)
    for event in events:
        driver.event(event)
    driver.run()
    assert driver.totals() == oracle(pipeline, parameters, events)
