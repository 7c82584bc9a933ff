"""Reading back without a broker: a consumer that gets no answers is replaced, and the next goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from streaming.engine import restore
from streaming.engine.progress import Progress, progress_key
from streaming.engine.restore import Positions, Restorer

KEY = progress_key("combine", "events", 0)


class Broker:
    """Four records of progress, the last of them ours; each consumer gets so many answers and then none."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.consumers: list[Reading] = []

    def consumer(self, _: Mapping[str, Any]) -> Reading:
        self.consumers.append(Reading(self.answers.pop(0)))
        return self.consumers[-1]


class Reading:
    def __init__(self, answers: int) -> None:
        self.left = answers
        self.assigned: list[int] = []
        self.closed = False
        self._at = 0

    def committed(self, places: list[TopicPartition], _: float) -> list[TopicPartition]:
        self._answer()
        return [TopicPartition("events", 0, 14)]

    def list_topics(self, *_: object) -> None:
        self._answer()

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned += [place.offset for place in places]
        self._at = max(0, places[0].offset)

    def consume(self, _: int, wait: float) -> list[Message]:
        assert not self.closed
        if not self.left:
            time.sleep(min(wait, 0.01))
            return []
        self.left -= 1
        at, self._at = self._at, self._at + 1
        if at == 4:
            return [
                Message(topic="progress", partition=0, offset=5, error=KafkaError(KafkaError._PARTITION_EOF))
            ]
        return [Message(topic="progress", partition=0, offset=at, key=KEY, value=bytes([11 + at]))]

    def unassign(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def _answer(self) -> None:
        if not self.left:
            time.sleep(0.01)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        self.left -= 1


def restored(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> tuple[Progress, int]:
    """What is read back in the end, and how many records were."""
    monkeypatch.setattr(restore, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(restore, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(Restorer, "_ends", lambda *_: {"progress": 5})
    anything: Any = object()

    class Codec:
        def decode(self, value: bytes) -> dict[str, Any]:
            return Progress(value[0]).to_record("id")

    codec: Any = Codec()
    make: Any = broker.consumer
    positions = Positions("flow", "combine", "group", "events", "id", "progress", {0: 0})
    restorer = Restorer(positions, codec, lambda: anything, make)
    try:
        return restorer.submit(0).result(10), restorer.records
    finally:
        restorer.close()
        assert all(consumer.closed for consumer in broker.consumers)


def test_one_consumer_does_where_everything_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(100)
    assert restored(broker, monkeypatch) == (Progress(14), 4)
    assert [consumer.assigned for consumer in broker.consumers] == [[OFFSET_BEGINNING]]


def test_a_consumer_that_hears_nothing_any_more_is_replaced_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The committed offset, the leader and two records; then the next one's leader, and one record; then all.
    broker = Broker(4, 2, 100)
    assert restored(broker, monkeypatch) == (Progress(14), 4), "nothing is read twice, nothing is missing"
    assert [consumer.assigned for consumer in broker.consumers] == [[OFFSET_BEGINNING], [2], [3]]


def test_one_that_never_got_anything_begins_where_the_log_does(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(2, 100)
    assert restored(broker, monkeypatch) == (Progress(14), 4)
    assert [consumer.assigned for consumer in broker.consumers] == [[OFFSET_BEGINNING]] * 2


def test_one_whose_questions_are_not_answered_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(0, 1, 100)
    assert restored(broker, monkeypatch) == (Progress(14), 4)
    assert [consumer.assigned for consumer in broker.consumers] == [[], [], [OFFSET_BEGINNING]]
