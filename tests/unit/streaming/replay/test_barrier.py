"""Under locks the wait for Kafka is short, and a missing answer is no consent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.settings import KafkaSettings
from contracts.topics import SALES_EVENTS
from kafka_client import clients as connect
from streaming.engine.pipeline import Parameters
from streaming.generations.catalog import Generation, TopicIdentity
from streaming.pipelines import PIPELINES
from streaming.replay.barrier import Committed, ReachedBarrier
from streaming.replay.errors import RequestRefused

NOWHERE = KafkaSettings.model_validate(
    {"kafka_bootstrap": "127.0.0.1:1", "schema_registry_url": "http://127.0.0.1:1"}
)
PIPELINE = PIPELINES["top-sales-by-city", 1]


def generation(number: int) -> Generation:
    topics = {SALES_EVENTS.name: TopicIdentity("id", 2)}
    parameters = Parameters("UTC", timedelta(hours=1), "1-day")
    return Generation(PIPELINE.name, number, 1, "active", parameters, topics, {0: 0, 1: 3})


def check(committed: Any, state: str = "reached") -> None:
    """In a snapshot in which the barrier has this state."""
    snapshot: Any = SimpleNamespace(scalar=lambda _: state)
    ReachedBarrier(1, {0: 7, 1: 9}, committed).check(snapshot)


@pytest.fixture
def both() -> Iterator[Committed]:
    with closing(Committed(NOWHERE, [generation(1), generation(2)])) as committed:
        yield committed


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, int]]:
    """The offsets that Kafka returns as committed, query by query."""
    left: list[dict[int, int]] = []
    monkeypatch.setattr(connect, "committed_offsets", lambda *_: left.pop(0))
    return left


def test_a_kafka_that_does_not_answer_is_given_up_within_a_second(both: Committed) -> None:
    began = time.monotonic()
    with pytest.raises(
        RequestRefused, match="Kafka did not return the generations' offsets in time"
    ) as raised:
        check(both)
    assert time.monotonic() - began < 3
    assert "\n" not in str(raised.value)


def test_generations_that_stand_at_the_targets_pass(answers: list[dict[int, int]], both: Committed) -> None:
    answers += [{0: 7, 1: 9}, {0: 7, 1: 9}]
    check(both)
    assert answers == []


@pytest.mark.parametrize("second", [{0: 8, 1: 9}, {0: 7}, {}])
def test_one_that_stands_elsewhere_is_refused_by_its_number(
    answers: list[dict[int, int]], both: Committed, second: dict[int, int]
) -> None:
    answers += [{0: 7, 1: 9}, second]
    with pytest.raises(RequestRefused, match="g2 moved on"):
        check(both)


def test_where_nothing_is_committed_it_stands_at_the_beginning(
    answers: list[dict[int, int]], both: Committed
) -> None:
    answers += [{0: 5}, {}]
    assert both.read(1) == {1: {0: 5, 1: 3}, 2: {0: 0, 1: 3}}


def test_a_barrier_that_is_over_needs_no_answer(answers: list[dict[int, int]], both: Committed) -> None:
    with pytest.raises(RequestRefused, match="the barrier is expired"):
        check(both, "expired")
    assert answers == []
