"""A log of corrected, late, repeated and undecodable events of two sources."""

from __future__ import annotations

import hashlib
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

from contracts.schemas import load
from kafka_client.registry import Codec
from tests.support.histories import CITIES, NOON, Source

EVENTS = 1_500
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
            "sale_id": f"{source.name}-{len(made)}", "sold_at": sold_at,
            "country": country, "city": city if chance.random() > 0.02 else "",
            "salesman_id": f"s{chance.randrange(5)}", "salesman_name": chance.choice(["Ada", "Bo", "Ćiro"]),
            "product": "tv", "quantity": chance.randrange(1, 4),
            "amount": Decimal(chance.randrange(1, 10**9)).scaleb(-4), "currency": chance.choice(["EUR", "USD"]),
        }  # fmt: skip
        recorded_at = sold_at + (timedelta(days=90) if chance.random() < 0.2 else HOUR / 60)
        made.append(source.event(row, "SALE", recorded_at))
        if chance.random() < 0.3:
            made.append(source.event(row, "REVERSAL", recorded_at + HOUR))
    return made


def newer_schema() -> dict[str, Any]:
    """The event's, with a field that no pipeline reads."""
    schema = load("sale_event")
    till = {"name": "till", "type": ["null", "string"], "default": None}
    return {**schema, "fields": [*schema["fields"], till]}


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
