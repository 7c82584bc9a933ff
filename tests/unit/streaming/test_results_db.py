"""A server that is away is waited for; a question that is refused is not asked again."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError

from kafka_client.errors import Fatal
from observability.waits import WAITS
from streaming.results_db import retried


class Answer(Exception):
    """As psycopg2 raises it: text of several lines, and PostgreSQL's code if it answered."""

    def __init__(self, pgcode: str | None) -> None:
        super().__init__("what is wrong\nDETAIL: a customer's data")
        self.pgcode = pgcode


def test_a_server_that_is_away_is_a_wait_until_it_answers() -> None:
    seen: list[list[tuple[str, str]]] = []

    def call() -> None:
        seen.append([(wait.on, wait.detail) for wait in WAITS.current()])
        if len(seen) == 1:
            raise OperationalError("INSERT", {"a": "value"}, Answer("57P03"))
        if len(seen) == 2:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "broker down"))

    retried(call, threading.Event())
    away = ("postgres", "the results database does not answer: what is wrong")
    assert seen[:2] == [[], [away]]
    assert seen[2][0] == away
    assert seen[2][1][0] == "kafka"
    assert WAITS.current() == []


def asked(error: type[DBAPIError], pgcode: str | None) -> int:
    """How often a call is made that fails once."""
    asked = 0

    def call() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise error("INSERT", {"a": "value"}, Answer(pgcode))

    retried(call, threading.Event())
    return asked


@pytest.mark.parametrize("pgcode", [None, "57P01", "40001", "53100", "53300", "08006"])
def test_a_server_that_is_away_is_asked_again(pgcode: str | None) -> None:
    assert asked(OperationalError, pgcode) == 2


@pytest.mark.parametrize(
    ("error", "pgcode"),
    [
        (DataError, "22003"),
        (IntegrityError, "23514"),
        (ProgrammingError, "42P01"),
        (ProgrammingError, "42501"),
        (OperationalError, "54000"),
        (OperationalError, "22P05"),
    ],
)
def test_what_is_refused_is_fatal_with_one_line(error: type[DBAPIError], pgcode: str) -> None:
    with pytest.raises(Fatal) as raised:
        asked(error, pgcode)
    assert str(raised.value) == f"the results database refuses ({pgcode}): what is wrong"


def test_an_error_that_nobody_thought_of_keeps_its_name() -> None:
    with pytest.raises(ProgrammingError):
        asked(ProgrammingError, None)


def kafka_asked(code: int) -> int:
    """How often a call is made that Kafka answers once with this code."""
    asked = 0

    def call() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KafkaException(KafkaError(code, "what is wrong"))

    retried(call, threading.Event())
    return asked


@pytest.mark.parametrize(
    "code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS]
)
def test_a_broker_that_is_away_is_asked_again(code: int) -> None:
    assert kafka_asked(code) == 2


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    ],
)
def test_a_right_that_is_missing_is_fatal_with_one_line(code: int) -> None:
    with pytest.raises(
        Fatal, match=r"Kafka refuses .*what is wrong.*the Kafka user of this process"
    ) as raised:
        kafka_asked(code)
    assert "\n" not in str(raised.value)
