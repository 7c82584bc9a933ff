"""A generation's whole life beside live traffic: built, promoted, rolled back, promoted again; the former retired."""

from __future__ import annotations

import pytest

from kafka_client.clients import admin
from streaming.replay import retirement
from tests.support.live_harness import LiveHarness
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak


def test_promoted_rolled_back_promoted_again_and_the_former_one_retired_while_events_come(
    live: LiveHarness,
) -> None:
    harness = live.harness
    kafka, results, name = harness.kafka, harness.results, harness.pipeline.name
    harness.feed(2000)
    forgotten = live.folder / f"{name}.g7.slot0"
    forgotten.mkdir(parents=True)
    with live.running():
        live.settled(1)
        live.build()
        live.settled(2)
        live.promote(2, live.compare(2).fingerprint)
        harness.feed(300)
        live.settled(2)
        back = live.rollback(1)
        assert (back.generation, back.former, back.promotion_number) == (1, 2, 3)
        harness.feed(300)
        live.settled(1)
        live.settled(2)
        live.promote(2, live.compare(2).fingerprint)
        done = retirement.retire(kafka, results, name, 1)
        assert done.rows > 0
        assert done.topics == 3, "workers left its groups before its topics went"
        harness.feed(300)
        live.settled(2)
        wait_until(lambda: not (live.folder / f"{name}.g1.slot0").exists())
        assert (live.folder / f"{name}.g2.slot0" / "0").is_dir()
        assert not forgotten.exists()
    assert (live.folder / f"{name}.g2.slot0" / "0").is_dir(), "told to stop, a worker keeps its store"
    assert (live.state(1), live.state(2)) == ("retired", "active")
    assert live.rows(1) == {}
    there = admin(kafka).list_topics(timeout=30).topics
    assert not [topic for topic in there if topic.startswith(f"{name}.g1.")]
