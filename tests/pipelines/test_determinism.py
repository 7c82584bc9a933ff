"""A replay is the same computation again: whatever the batches, workers and kills, the result is one and the same.

Here in memory, where a kill is what it leaves: nothing of an open transaction, and another that begins from the
committed progress. `tests/integration/streaming/replay/test_nasty_log.py` kills processes over the same log.
"""

from __future__ import annotations

import hashlib
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from contracts.schemas import load
from kafka_client.registry import Codec
from streaming.engine.pipeline import Parameters
from streaming.engine.step import Step
from streaming.pipelines import top_sales_by_city, top_salesman_by_country
from streaming.testing import Driver, canonical
from tests.pipelines.histories import CITIES, NOON, Source

EVENTS, PARTITIONS, REPLAYS = 1_500, 4, 20
HOUR = timedelta(hours=1)
# No registry gets that far.
UNKNOWN_SCHEMA = b"\0\x7f\xff\xff\xff"


def facts(chance: random.Random) -> list[dict[str, Any]]:
    """Sales of two sources, a third of them corrected or taken back, a fifth of them late, some impossible."""
    sources = [Source("postgres"), Source("csv")]
    made: list[dict[str, Any]] = []
    while len(made) < EVENTS:
        source = chance.choice(sources)
        sold_at = NOON + timedelta(minutes=chance.randrange(-60 * 24 * 40, 60 * 24 * 40))
        country, city = chance.choice(CITIES)
        row = {
            "sale_id": f"{source.name}-{len(made)}",
            "sold_at": sold_at,
            "country": country,
            "city": city if chance.random() > 0.02 else "",
            "salesman_id": f"s{chance.randrange(5)}",
            "salesman_name": chance.choice(["Ada", "Bo", "Ćiro"]),
            "product": "tv",
            "quantity": chance.randrange(1, 4),
            "amount": Decimal(chance.randrange(1, 10**9)).scaleb(-4),
            "currency": chance.choice(["EUR", "USD"]),
        }
        recorded_at = sold_at + (timedelta(days=90) if chance.random() < 0.2 else HOUR / 60)
        made.append(source.event(row, "SALE", recorded_at))
        if chance.random() < 0.3:
            made.append(source.event(row, "REVERSAL", recorded_at + HOUR))
    return made


def newer_schema() -> dict[str, Any]:
    """The event's, with a field that no pipeline reads."""
    schema = load("sale_event")
    return schema | {
        "fields": [*schema["fields"], {"name": "till", "type": ["null", "string"], "default": None}]
    }


def nasty_log(older: Codec, newer: Codec, partitions: int) -> list[tuple[int, bytes, bytes]]:
    """Partition, key and value of every record: two schema versions, deliveries that are repeated, poison."""
    chance = random.Random(7)
    log: list[tuple[int, bytes, bytes]] = []
    for number, event in enumerate(facts(chance)):
        key = str(event["sale_id"]).encode()
        value = (newer if number % 7 == 0 else older).encode(event)
        partition = hash_of(key) % partitions
        log.append((partition, key, value))
        if chance.random() < 0.05:
            # Again, and what was before it in the partition with it.
            again = [record for record in log[-10:] if record[0] == partition]
            log += again
        if chance.random() < 0.03:
            poison = chance.choice(
                [b"", b"\0", value[:-3], UNKNOWN_SCHEMA + value[5:], value[:5] + b"\xff" * 9]
            )
            log.append((partition, b"poison", poison))
    return log


def hash_of(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest())


def replay(pipeline: Any, seed: int) -> tuple[str, list[str], list[tuple[int, int, int, int]]]:
    """The hash of the totals, what was refused, and what was counted; cut and killed as the seed says."""
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
