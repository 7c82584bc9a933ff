"""Rules 5 and 6: every transaction has one clear outcome, and nothing slow happens inside of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from kafka_client.errors import Abortable, Fatal, Fenced, OutcomeUnknown, Refused
from streaming.engine.step import OutRecord
from streaming.engine.transactions import Transactions


class FakeProducer:
    """Records its calls; `fails` names the call that raises, and with what."""

    def __init__(self, log: list[str], fails: dict[str, list[KafkaError]]) -> None:
        self.log = log
        self.fails = fails
        self.offsets: dict[tuple[str, int], int] = {}
        self.reports: list[Callable[[], None]] = []
        self.headers: list[tuple[str, bytes | None, Any]] = []

    def _called(self, name: str) -> None:
        self.log.append(name)
        if self.fails.get(name):
            raise KafkaException(self.fails[name].pop(0))

    def init_transactions(self, _: float) -> None:
        self._called("init")

    def begin_transaction(self) -> None:
        self._called("begin")

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes | None = None,
        partition: int = 0,
        on_delivery: Any = None,
        headers: Any = None,
    ) -> None:
        self._called("produce")
        self.headers.append((topic, key, headers))
        offset = self.offsets.get((topic, partition), 100)
        self.offsets[topic, partition] = offset + 1
        if on_delivery is not None:
            delivered = Message(topic=topic, partition=partition, offset=offset)
            self.reports.append(lambda: on_delivery(None, delivered))

    def send_offsets_to_transaction(self, *_: object) -> None:
        self._called("offsets")

    def commit_transaction(self, _: float) -> None:
        self._called("commit")
        for report in self.reports:
            report()

    def abort_transaction(self, _: float) -> None:
        self._called("abort")

    def purge(self) -> None:
        self._called("purge")


Errors = dict[str, list[KafkaError]]


def transactions(**fails: list[KafkaError]) -> tuple[Transactions, list[str]]:
    log: list[str] = []
    made: Any = lambda: FakeProducer(log, fails)  # noqa: E731
    return Transactions(made, "test.combine"), log


RECORDS = [
    OutRecord("state", 1, b"k", b"v"),
    OutRecord("late", None, b"k", b"v"),
    OutRecord("state", 1, b"l", b"v"),
]
OFFSETS = {("events", 3): 9}


def commit(over: Transactions) -> dict[tuple[str, int], int]:
    return over.commit(RECORDS, OFFSETS, b"metadata")


def abortable() -> KafkaError:
    return KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "thrown out", txn_requires_abort=True)


NO_ANSWER = KafkaError(KafkaError._TIMED_OUT, "no answer")


def test_a_commit_returns_the_offset_of_the_last_record_of_a_partition() -> None:
    over, log = transactions()
    assert commit(over) == {("state", 1): 102}
    assert log == ["init", "begin", "produce", "produce", "produce", "offsets", "commit"]


def test_only_the_last_record_of_a_partition_carries_the_age_of_the_transaction() -> None:
    producer = FakeProducer([], {})
    made: Any = lambda: producer  # noqa: E731
    Transactions(made, "test.combine").commit(RECORDS, OFFSETS, b"metadata", 17)
    assert [(topic, key) for topic, key, headers in producer.headers if headers] == [("state", b"l")]
    assert [headers for _, _, headers in producer.headers if headers] == [[("oldest-recorded-at", b"17")]]


def test_a_retriable_answer_is_asked_for_again() -> None:
    over, log = transactions(commit=[KafkaError(KafkaError._TIMED_OUT, "slow", retriable=True)])
    commit(over)
    assert log[-2:] == ["commit", "commit"]


def test_an_abortable_error_aborts_and_keeps_the_producer() -> None:
    over, log = transactions(offsets=[abortable()])
    with pytest.raises(Abortable) as raised:
        commit(over)
    assert not isinstance(raised.value, OutcomeUnknown)
    assert log[-2:] == ["offsets", "abort"]
    commit(over)
    assert log.count("init") == 1


@pytest.mark.parametrize(
    ("call", "errors"),
    [
        *((call, {call: [NO_ANSWER]}) for call in ("commit", "offsets", "begin")),
        ("abort", {"offsets": [abortable()], "abort": [NO_ANSWER]}),
    ],
)
def test_without_a_clear_answer_the_producer_is_replaced(call: str, errors: Errors) -> None:
    over, log = transactions(**errors)
    with pytest.raises(OutcomeUnknown):
        commit(over)
    assert log[-3:] == [call, "purge", "init"]
    commit(over)


@pytest.mark.parametrize(
    "errors",
    [
        {"commit": [KafkaError(KafkaError._FENCED, "fenced")]},
        {"commit": [KafkaError(KafkaError._FATAL, "fenced")]},
        {"commit": [KafkaError(KafkaError.PRODUCER_FENCED, "fenced")]},
        {"commit": [KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "fenced")]},
        {"offsets": [abortable()], "abort": [KafkaError(KafkaError._FENCED, "fenced")]},
    ],
)
def test_a_fenced_producer_does_not_come_back(errors: Errors) -> None:
    over, log = transactions(**errors)
    with pytest.raises(Fenced, match="fenced"):
        commit(over)
    assert log.count("init") == 1


def test_a_record_that_is_too_large_is_fatal_at_once_and_named() -> None:
    """By librdkafka's own answer: it refuses above its message.max.bytes before anything is sent."""
    broker = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    (address,) = (f"{b.host}:{b.port}" for b in broker.list_topics(timeout=10).brokers.values())
    config = {"bootstrap.servers": address, "transactional.id": "id", "message.max.bytes": 10_000}
    over = Transactions(lambda: Producer(config), "flow")
    large = OutRecord("state", 0, b"a key", b"x" * 20_000)
    with pytest.raises(Refused, match=r"20,005 bytes, for topic state;"):
        over.commit([RECORDS[0], large], {}, None)
    over.close()


@pytest.mark.parametrize("call", ["offsets", "commit"])
def test_a_record_that_the_broker_finds_too_large_is_fatal_at_once(call: str) -> None:
    refused = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large", txn_requires_abort=True)
    over, log = transactions(**{call: [refused]})
    with pytest.raises(Refused, match="for topic state"):
        commit(over)
    assert log[-1] == call


def test_a_broker_that_refuses_the_producer_is_fatal() -> None:
    with pytest.raises(Fatal, match="does not take the producer"):
        transactions(init=[KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "no right")])
