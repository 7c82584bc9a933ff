"""A replay is the same computation again: whatever the batches, workers and kills, the result is one and the same.

Here in memory, where a kill is what it leaves: nothing of an open transaction, and another that begins from the
committed progress. `tests/integration/streaming/replay/test_nasty_log.py` kills processes over the same log.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest

from streaming.engine.pipeline import Parameters
from streaming.engine.step import Step
from streaming.pipelines import top_sales_by_city, top_salesman_by_country
from streaming.testing import Driver, canonical
from tests.support.nasty_log import EVENTS, HOUR, nasty_log, newer_schema

PARTITIONS, REPLAYS = 4, 20


def replay(pipeline: Any, seed: int) -> tuple[str, list[str], list[tuple[int, int, int, int]]]:
    """The hash of the totals, what was refused, and what was counted; cut and killed by the seed."""
    chance = random.Random(seed)
    parameters = Parameters("Europe/Berlin", HOUR, pipeline.calendar)
    driver = Driver(pipeline, parameters, input_partitions=PARTITIONS, workers=chance.randrange(1, 5))
    newer = driver.registry.codec("newer", newer_schema())
    for partition, key, value in nasty_log(driver.event_codec, newer, PARTITIONS):
        driver.log.append(partition, key, value)
    behind = set(range(PARTITIONS))
    while behind:
        partition = chance.choice(sorted(behind))
        left = driver.log.after(partition, driver.progress(partition).next_offset)
        if not left:
            behind.discard(partition)
            continue
        driver.combine(partition, chance.choice([1, 7, 100, 2_000]), commit=chance.random() > 0.2)
        if chance.random() < 0.3:
            driver.merge(chance.randrange(3), chance.choice([1, 5, 500]), commit=chance.random() > 0.3)
        if chance.random() < 0.1:
            taken_over(driver._combine(0, partition), partition)
            taken_over(driver.merges[0], 0)
    driver.run()
    refused = sorted(f"{d['partition']}/{d['offset']} {d['reason']}" for d in driver.dead_letters())
    counted = [
        (p.events, p.duplicates, p.late, p.dead) for p in (driver.progress(n) for n in range(PARTITIONS))
    ]
    return hashlib.sha256(canonical(driver.totals()).encode()).hexdigest(), refused, counted


def taken_over(step: Step, partition: int) -> None:
    """Its worker was killed: what is in memory is gone, and another begins from what was committed."""
    committed = step.progress(partition)
    step.reset()
    step.forget(partition)
    step.begin(partition, committed)


@pytest.mark.parametrize("pipeline", [top_sales_by_city.V1, top_salesman_by_country.V1])
def test_twenty_replays_of_a_nasty_log_have_one_hash(pipeline: Any) -> None:
    first = replay(pipeline, 0)
    events, duplicates, late, dead = (sum(counts) for counts in zip(*first[2], strict=True))
    assert min(duplicates, late, dead) > 20
    assert events > EVENTS
    assert [replay(pipeline, seed) for seed in range(1, REPLAYS)] == [first] * (REPLAYS - 1)
