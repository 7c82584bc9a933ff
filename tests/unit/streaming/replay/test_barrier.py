"""Under locks nobody waits long for Kafka, and what it does not say is no consent."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
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


class Snapshot:
    """A connection in whose snapshot the barrier stands there."""

    def __init__(self, state: str = "reached") -> None:
        self._state = state

    def scalar(self, _: object) -> str:
        return self._state


def generation(number: int) -> Generation:
    topics = {SALES_EVENTS.name: TopicIdentity("id", 2)}
    parameters = Parameters("UTC", timedelta(hours=1), "1-day")
    return Generation(PIPELINE.name, number, 1, "active", parameters, topics, {0: 0, 1: 3})


def check(committed: Any, state: str = "reached") -> None:
    snapshot: Any = Snapshot(state)
    ReachedBarrier(1, {0: 7, 1: 9}, committed).check(snapshot)


def test_a_kafka_that_does_not_answer_is_given_up_within_a_second() -> None:
    with closing(Committed(NOWHERE, [generation(1), generation(2)])) as committed:
        began = time.monotonic()
        with pytest.raises(
            RequestRefused, match="Kafka did not return the generations' offsets in time"
        ) as raised:
            check(committed)
        assert time.monotonic() - began < 3
    assert "\n" not in str(raised.value)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, int]]:
    """What Kafka says is committed, question by question."""
    left: list[dict[int, int]] = []
    monkeypatch.setattr(connect, "committed_offsets", lambda *_: left.pop(0))
    return left


def test_generations_that_stand_at_the_targets_pass(answers: list[dict[int, int]]) -> None:
    answers += [{0: 7, 1: 9}, {0: 7, 1: 9}]
    with closing(Committed(NOWHERE, [generation(1), generation(2)])) as committed:
        check(committed)
    assert answers == []


@pytest.mark.parametrize("second", [{0: 8, 1: 9}, {0: 7}, {}])
def test_one_that_stands_elsewhere_is_refused_by_its_number(
    answers: list[dict[int, int]], second: dict[int, int]
) -> None:
    answers += [{0: 7, 1: 9}, second]
    with (
        closing(Committed(NOWHERE, [generation(1), generation(2)])) as committed,
        pytest.raises(RequestRefused, match="g2 moved on"),
    ):
        check(committed)


def test_where_nothing_is_committed_it_stands_at_the_beginning(answers: list[dict[int, int]]) -> None:
    answers += [{0: 5}]
    with closing(Committed(NOWHERE, [generation(1)])) as committed:
        assert committed.read(1) == {1: {0: 5, 1: 3}}


def test_a_barrier_that_is_over_needs_no_answer(answers: list[dict[int, int]]) -> None:
    with (
        closing(Committed(NOWHERE, [generation(1)])) as committed,
        pytest.raises(RequestRefused, match="the barrier is expired"),
    ):
        check(committed, "expired")
    assert answers == []
