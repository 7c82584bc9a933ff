"""The test driver over some events, and its work in any order."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from streaming.engine.pipeline import Parameters, Pipeline
from streaming.pipelines import PIPELINES
from streaming.testing import Driver

CITY = PIPELINES[("top-sales-by-city", 1)]
GRACE = timedelta(hours=1)


def driver_of(
    pipeline: Pipeline, *events: Mapping[str, Any], parameters: Parameters | None = None, **options: Any
) -> Driver:
    """A driver that has taken the events of its first input."""
    # A pipeline without windows reads no calendar.
    parameters = parameters or Parameters("UTC", GRACE, pipeline.calendar or "1-day")
    driver = Driver(pipeline, parameters, **options)
    for event in events:
        driver.event(event)
    driver.run()
    return driver


def city_driver(*events: Mapping[str, Any], **options: Any) -> Driver:
    return driver_of(CITY, *events, **options)


def work_through(driver: Driver, order: random.Random) -> None:
    """Take steps in any order, cut anywhere, aborted or committed, until nothing is left."""
    while True:
        left: list[tuple[int | None, int]] = [
            (number, partition)
            for number, log in enumerate(driver.logs)
            for partition in range(log.partitions)
            if log.after(partition, driver.progress(partition, number=number).next_offset)
        ]
        left += [
            (None, partition)
            for partition in range(driver.partials.partitions)
            if driver.partials.after(partition, driver.merge_progress(partition).next_offset)
        ]
        if not left:
            return
        number, partition = order.choice(left)
        most, commit = order.randint(1, 9), order.random() > 0.3
        if number is None:
            driver.merge(partition, most, commit=commit)
        else:
            driver.combine(partition, most, commit=commit, number=number)
