"""The join of sales and payments, exactly-once, over two logs that are there already: events a second and a CPU-second.

Every event changes a sale of its own, so each costs a record of the state topic, where a sum has one for thousands.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from confluent_kafka import Producer

from benchmarks.engine import PRELOAD_TRANSACTION, Harness, in_child, kafka_of_its_own, measure, preload
from benchmarks.figures import Figure
from contracts.schemas import load
from kafka_client import clients as connect
from kafka_client.registry import Registry


def preload_payments(harness: Harness, count: int) -> None:
    """A payment for each sale, in another order."""
    topic = harness.sources[1]
    codec = Registry(harness.kafka).codec(topic.subject, load(topic.schema))
    producer: Producer = connect.transactional_producer(harness.kafka, f"payments-{harness.suffix}")
    producer.init_transactions(30)
    chance = Random(2)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    sales = list(range(count))
    chance.shuffle(sales)
    for first in range(0, count, PRELOAD_TRANSACTION):
        values = []
        for seq in range(first, min(first + PRELOAD_TRANSACTION, count)):
            at = start + timedelta(seconds=seq)
            payment = {
                "source": "soap",
                "seq": seq,
                "payment_id": f"p{seq:012d}",
                "sale_id": f"{sales[seq]:012d}",
                "amount": Decimal(chance.randrange(10**7)).scaleb(-4),
                "currency": "EUR",
                "status": "CONFIRMED",
                "confirmed_at": at,
                "recorded_at": at,
            }
            values.append((f"{sales[seq]:012d}".encode(), codec.encode(payment)))
        producer.begin_transaction()
        for key, value in values:
            producer.produce(topic.name, value, key)
        producer.commit_transaction(60)


def figures(sales: int = 200_000) -> list[Figure]:
    """Sales and as many payments, joined by one process on an embedded Kafka of its own."""
    with kafka_of_its_own() as kafka:
        harness = Harness.make(kafka, "enriched-sales")
        preload(harness, sales)
        preload_payments(harness, sales)
        with tempfile.TemporaryDirectory() as folder:
            ours = in_child(measure, kafka, harness, 2 * sales, folder)
    return [
        Figure("join of sales and payments", ours["events"] / ours["seconds"], "events/s"),
        Figure("join of sales and payments, per CPU-second", ours["events"] / ours["cpu_seconds"], "events"),
        Figure("join: memory at most", ours["max_rss_mib"], "MiB"),
    ]
