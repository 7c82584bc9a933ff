"""Topics that take less than Kafka's default: what does not fit is a dead letter, the others count."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from contracts.topics import Topic
from kafka_client import clients
from tests.support.capture import SALE, Sales, captured

MOST = 20_000


@pytest.fixture
def small(sales: Sales) -> Sales:
    """Capture whose topics take little."""

    def made(topic: Topic, most: int) -> Topic:
        name = f"{topic.name}-{uuid4().hex[:8]}"
        return replace(topic, name=name, config={**topic.config, "max.message.bytes": str(most)})

    topics = replace(
        sales.topics,
        events=made(sales.topics.events, MOST),
        dead_letters=made(sales.topics.dead_letters, 2_000),
    )
    clients.ensure_topics(sales.stack.kafka, (topics.events, topics.dead_letters))
    return replace(sales, topics=topics)


def product(sale_id: str, size: int) -> str:
    """A sale whose product is so long and cannot be compressed."""
    long = f"(select left(string_agg(md5(n::text || '{sale_id}'), ''), {size}) from generate_series(1, {size}) n)"
    return SALE.format(sale_id, 1).replace("'TV'", long)


def test_row_26_a_sale_larger_than_the_topic_takes(small: Sales) -> None:
    """In the snapshot and in the stream, alone and among so many that no batch of all of them would be taken."""
    small.run(product("before", 2 * MOST), SALE.format("first", 1))
    with small.capturing() as running:
        captured(small, running)
        small.run(
            "begin; "
            + product("large", 2 * MOST)
            + "; "
            + "; ".join(product(f"s{n}", 1_000) for n in range(60))
            + "; commit",
            "delete from public.sales where sale_id = 'large'",
        )
        small.wait(lambda: len(small.log(small.topics.dead_letters)) == 3, running)
        small.wait(lambda: len(small.events()) == 61, running)
        # The topic takes less from now on.
        lower = ConfigResource(
            ResourceType.TOPIC,
            small.topics.events.name,
            incremental_configs=[
                ConfigEntry("max.message.bytes", "8000", incremental_operation=AlterConfigOpType.SET)
            ],
        )
        # Named, because its answer would never come if the client went before.
        client = clients.admin(small.stack.kafka)
        for future in client.incremental_alter_configs([lower]).values():
            future.result()
        small.run(product("then", 10_000), SALE.format("last", 1))
        small.wait(lambda: len(small.events()) == 62, running)
    letters = [value for _, value in small.log(small.topics.dead_letters)]
    assert [letter["reason"] for letter in letters] == [
        "sale: the row is larger than 19500 bytes",
        "sale: the row is larger than 19500 bytes",
        "reversal: the row is larger than 19500 bytes",
        "sale: the row is larger than 7500 bytes",
    ]
    for letter, sale_id in zip(letters, ("before", "large", "large", "then"), strict=True):
        assert f'"sale_id": "{sale_id}"'.encode() in letter["value"]


def test_row_26_the_limit_is_the_topics_and_never_above_the_producers(small: Sales) -> None:
    limits = clients.record_limits(small.stack.kafka, [small.topics.events.name, small.topics.positions.name])
    assert limits == {small.topics.events.name: MOST, small.topics.positions.name: clients.MOST_RECORD_BYTES}
