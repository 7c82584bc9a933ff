"""Reading without a broker: positions pass ends of partitions, errors are logged or raised, and waits end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from structlog.testing import capture_logs

from contracts.settings import KafkaSettings
from kafka_client import reader
from kafka_client.reader import Reader, advance, take


def record(offset: int, partition: int = 0) -> Message:
    return Message(topic="log", partition=partition, offset=offset, key=b"k", value=b"v")


def failed(code: int, offset: int = -1, partition: int = 0) -> Message:
    return Message(topic="log", partition=partition, offset=offset, error=KafkaError(code))


def end(offset: int, partition: int = 0) -> Message:
    return failed(KafkaError._PARTITION_EOF, offset, partition)


class Clock:
    """Moves by what a poll waits for."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class FakeConsumer:
    """Gives the batches one after the other, each in one poll; without one a poll waits until its time is over."""

    def __init__(self, clock: Clock, *batches: Sequence[Message], low: int = 0) -> None:
        self._clock = clock
        self._batches = [list(batch) for batch in batches]
        self._low = low
        self.assigned: list[tuple[int, int]] = []
        self.asked: list[tuple[int, float]] = []
        self.closed = False

    def consume(self, count: int, seconds: float) -> list[Message]:
        self.asked.append((count, seconds))
        if not self._batches:
            # Time moves in a poll of no time as well.
            self._clock.now += seconds + 0.001
            return []
        taken, self._batches[0] = self._batches[0][:count], self._batches[0][count:]
        if not self._batches[0] and (seconds == 0 or not taken):
            self._batches.pop(0)
        return taken

    def get_watermark_offsets(self, place: TopicPartition, _: float) -> tuple[int, int]:
        return self._low, 100

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned = [(place.partition, place.offset) for place in places]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reader, "time", clock)
    return clock


def reading(
    monkeypatch: pytest.MonkeyPatch, client: FakeConsumer, positions: dict[int, int] | None = None
) -> Reader:
    """From these positions."""
    monkeypatch.setattr(reader, "consumer", lambda *_, **__: client)
    settings = KafkaSettings(kafka_bootstrap="127.0.0.1:1", schema_registry_url="http://127.0.0.1:1")
    log = Reader(settings, "test", "log")
    if positions is not None:
        log.seek(positions)
    return log


def offsets(messages: Sequence[Message]) -> list[tuple[int | None, int | None]]:
    return [(message.partition(), message.offset()) for message in messages]


@pytest.mark.parametrize(
    ("messages", "positions", "taken", "after"),
    [
        ([record(3), record(4), end(9), end(8, 1)], {0: 3, 1: 8}, [(0, 3), (0, 4)], {0: 9, 1: 8}),
        ([end(4)], {0: 9}, [], {0: 9}),
        ([record(5), end(7, 2)], {}, [(0, 5)], {0: 6, 2: 7}),
    ],
    ids=["behind the marker of the last transaction", "never back", "a partition without one gets one"],
)
def test_records_and_ends_move_positions(
    messages: list[Message],
    positions: dict[int, int],
    taken: list[tuple[int, int]],
    after: dict[int, int],
) -> None:
    assert (offsets(advance(messages, positions)), positions) == (taken, after)


def test_a_retriable_error_is_logged_and_passed_over() -> None:
    positions = {0: 3}
    with capture_logs() as logs:
        messages = advance([failed(KafkaError._TRANSPORT), record(3)], positions)
    assert (offsets(messages), positions) == ([(0, 3)], {0: 4})
    assert [(line["event"], line["log_level"], line["topic"]) for line in logs] == [
        ("reading is retried", "warning", "log")
    ]


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
    ],
)
def test_an_error_that_no_retry_changes_is_raised(code: int) -> None:
    with pytest.raises(KafkaException) as raised:
        advance([record(3), failed(code)], {})
    assert raised.value.args[0].code() == code


def test_take_waits_for_one_and_then_takes_what_is_there(clock: Clock) -> None:
    client: Any = FakeConsumer(clock, [record(0), record(1), record(2)])
    positions = {0: 0}
    assert offsets(take(client, positions, 5.0, limit=10)) == [(0, 0), (0, 1), (0, 2)]
    assert client.asked == [(1, 5.0), (9, 0)]
    assert take(client, positions, 5.0) == []
    assert client.asked[2:] == [(1, 5.0)], "nothing came: nothing more is asked for"
    assert positions == {0: 3}


def test_a_log_that_begins_later_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    client = FakeConsumer(clock, low=7)
    with reading(monkeypatch, client) as log:
        log.seek({0: 3, 1: 9})
        assert log.positions == {0: 7, 1: 9}
        assert client.assigned == [(0, 7), (1, 9)]
        assert not client.closed
    assert client.closed


def test_reading_ends_where_every_position_has_reached_its_end(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    client = FakeConsumer(clock, [record(0), record(1)], [record(0, 1), end(3)], [end(2, 1)], [record(9)])
    log = reading(monkeypatch, client, {0: 0, 1: 0})
    assert [offsets(batch) for batch in log.read_to({0: 3, 1: 2})] == [[(0, 0), (0, 1)], [(1, 0)]]
    assert log.positions == {0: 3, 1: 2}
    assert [offsets(batch) for batch in log.read_to({0: 3, 1: 2})] == [], "there already: nothing is polled"


def test_an_error_that_ends_reading_goes_through(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    log = reading(monkeypatch, FakeConsumer(clock, [failed(KafkaError._AUTO_OFFSET_RESET)]), {0: 0})
    with pytest.raises(KafkaException) as raised:
        list(log.read_to({0: 3}))
    assert raised.value.args[0].code() == KafkaError._AUTO_OFFSET_RESET


def test_standing_still_is_raised_only_after_the_patience(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    log = reading(monkeypatch, FakeConsumer(clock, [failed(KafkaError._TRANSPORT)]), {0: 2})
    with pytest.raises(KafkaException) as raised:
        list(log.read_to({0: 5}, patience_seconds=30.0))
    assert raised.value.args[0].code() == KafkaError._TIMED_OUT
    assert "log" in raised.value.args[0].str()
    assert 30.0 < clock.now < 31.0


def test_each_move_begins_the_patience_anew(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    log = reading(monkeypatch, FakeConsumer(clock, [record(2)]), {0: 2})
    batches = log.read_to({0: 5}, patience_seconds=30.0)
    assert offsets(next(batches)) == [(0, 2)]
    clock.now = 29.0
    with pytest.raises(KafkaException):
        next(batches)
    assert 59.0 < clock.now < 60.0
