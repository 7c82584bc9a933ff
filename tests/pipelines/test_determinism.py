"""A replay is the same computation again: whatever the batches, workers and kills, the result is one and the same."""

from __future__ import annotations

import hashlib
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from contracts.registry import Codec
from contracts.schemas import load
from streaming.engine.driver import Driver, canonical
from streaming.engine.pipeline import Parameters
from streaming.pipelines import top_sales_by_city, top_salesman_by_country
from tests.pipelines.histories import CITIES, NOON, Source

EVENTS, PARTITIONS, REPLAYS = 1_500, 4, 20
HOUR = timedelta(hours=1)


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


def nasty_log(driver: Driver) -> list[tuple[int, bytes, bytes]]:
    """Partition, key and value of every record: two schema versions, deliveries that are repeated, poison."""
    chance = random.Random(7)
    schema = load("sale_event")
    newer = schema | {
        "fields": [*schema["fields"], {"name": "till", "type": ["null", "string"], "default": None}]
    }
    codecs: list[Codec] = [driver.event_codec, driver.registry.codec("newer", newer)]
    log: list[tuple[int, bytes, bytes]] = []
    for number, event in enumerate(facts(chance)):
        key = str(event["sale_id"]).encode()
        value = codecs[number % 7 == 0].encode(event)
        partition = hash_of(key) % PARTITIONS
        log.append((partition, key, value))
        if chance.random() < 0.05:
            # Again, and what was before it in the partition with it.
            again = [record for record in log[-10:] if record[0] == partition]
            log += again
        if chance.random() < 0.03:
            poison = chance.choice(
                [b"", b"\0", value[:-3], b"\0\0\0\0\x63" + value[5:], value[:5] + b"\xff" * 9]
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
    for partition, key, value in nasty_log(driver):
        driver.log.append(partition, key, value)
    behind = set(range(PARTITIONS))
    while behind:
        partition = chance.choice(sorted(behind))
        left = driver.log.after(partition, driver.progress(partition).next_offset)
        if not left:
            behind.discard(partition)
            continue
        # A kill is an abort: nothing of it was committed, and another goes on from progress.
        driver.combine(partition, chance.choice([1, 7, 100, 2_000]), commit=chance.random() > 0.2)
        if chance.random() < 0.3:
            driver.merge(chance.randrange(3), chance.choice([1, 5, 500]), commit=chance.random() > 0.3)
    driver.run()
    refused = sorted(f"{d['partition']}/{d['offset']} {d['reason']}" for d in driver.dead_letters())
    counted = [
        (p.events, p.duplicates, p.late, p.dead) for p in (driver.progress(n) for n in range(PARTITIONS))
    ]
    return hashlib.sha256(canonical(driver.totals()).encode()).hexdigest(), refused, counted


@pytest.mark.parametrize("pipeline", [top_sales_by_city.V1, top_salesman_by_country.V1])
def test_twenty_replays_of_a_nasty_log_have_one_hash(pipeline: Any) -> None:
    first = replay(pipeline, 0)
    events, duplicates, late, dead = (sum(counts) for counts in zip(*first[2], strict=True))
    assert min(duplicates, late, dead) > 20
    assert events > EVENTS
    assert [replay(pipeline, seed) for seed in range(1, REPLAYS)] == [first] * (REPLAYS - 1)
