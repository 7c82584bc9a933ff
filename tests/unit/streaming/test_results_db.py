"""A server that is away is waited for; a query that is refused is not repeated."""

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
            raise of_database(OperationalError, "57P03")
        if len(seen) == 2:
            raise of_kafka(KafkaError._TRANSPORT)

    retried(call, threading.Event())
    away = ("postgres", "the results database does not answer: what is wrong")
    assert seen[:2] == [[], [away]]
    assert seen[2][0] == away
    assert seen[2][1][0] == "kafka"
    assert WAITS.current() == []


def calls(error: Exception) -> int:
    """How often a call is made that fails once."""
    made = 0

    def call() -> None:
        nonlocal made
        made += 1
        if made == 1:
            raise error

    retried(call, threading.Event())
    return made


def of_database(kind: type[DBAPIError], pgcode: str | None) -> DBAPIError:
    return kind("INSERT", {"a": "value"}, Answer(pgcode))


def of_kafka(code: int) -> KafkaException:
    return KafkaException(KafkaError(code, "what is wrong"))


@pytest.mark.parametrize(
    "error",
    [
        *(
            of_database(OperationalError, code)
            for code in (None, "57P01", "40001", "53100", "53300", "08006")
        ),
        of_kafka(KafkaError._TRANSPORT),
        of_kafka(KafkaError._TIMED_OUT),
        of_kafka(KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
    ],
)
def test_a_server_that_is_away_is_asked_again(error: Exception) -> None:
    assert calls(error) == 2


@pytest.mark.parametrize(
    ("kind", "pgcode"),
    [
        (DataError, "22003"),
        (IntegrityError, "23514"),
        (ProgrammingError, "42P01"),
        (ProgrammingError, "42501"),
        (OperationalError, "54000"),
        (OperationalError, "22P05"),
    ],
)
def test_what_is_refused_is_fatal_with_one_line(kind: type[DBAPIError], pgcode: str) -> None:
    with pytest.raises(Fatal) as raised:
        calls(of_database(kind, pgcode))
    assert str(raised.value) == f"the results database refuses ({pgcode}): what is wrong"


def test_an_unforeseen_error_keeps_its_name() -> None:
    with pytest.raises(ProgrammingError):
        calls(of_database(ProgrammingError, None))


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
    sentence = r"Kafka refuses .*what is wrong.*the Kafka user of this process"
    with pytest.raises(Fatal, match=sentence) as raised:
        calls(of_kafka(code))
    assert "\n" not in str(raised.value)
