"""A worker on a real Kafka: every event counts once in the state topic."""

from __future__ import annotations

from datetime import timedelta

from tests.integration.streaming.ground import START, Ground, wait_until


def test_moves_events_to_the_state_topic_once(ground: Ground) -> None:
    worker = ground.worker()
    for _ in range(5):
        ground.feed(400, frontier=START + timedelta(days=30))
    ground.settled()
    wait_until(lambda: len(ground.watermarks()) == 4, what="watermark of every state partition")
    worker.terminate()
    assert worker.wait(20) == 0
