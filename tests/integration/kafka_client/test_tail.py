"""Following a topic on a real broker: nothing is returned twice or lost, and no record stops it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from contracts.schemas import load
from contracts.topics import DEAD_LETTERS, PUBLIC, Topic
from kafka_client.clients import ensure_topics
from kafka_client.registry import Registry, Unreachable, header
from kafka_client.tail import Tail
from observer import dead_letters, probes
from observer.probes import Ledger
from stack import ports
from stack.embedded import Embedded
from tests.support.kafka import produce

UNKNOWN_SCHEMA = 2_000_000_000


@pytest.fixture
def topic(stack: Embedded) -> Topic:
    """Of the test's own, with the values of dead letters."""
    made = replace(DEAD_LETTERS, name=f"test-{random.randrange(10**9)}")
    ensure_topics(stack.kafka, [made])
    return made


@pytest.fixture
def letter(stack: Embedded, topic: Topic) -> Callable[[str], bytes]:
    """The bytes of a dead letter with that reason."""
    codec = Registry(stack.kafka).codec(topic.subject, load(topic.schema))
    return lambda reason: codec.encode(
        {"origin": "sales-events", "partition": 0, "offset": 1, "reason": reason, "value": None}
    )


def reasons(tail: Tail) -> list[str]:
    return [value["reason"] for _, value in tail.read() if isinstance(value, dict)]


def test_a_record_that_is_none_is_skipped_and_counted_after_a_restart_too(
    stack: Embedded, topic: Topic, letter: Callable[[str], bytes]
) -> None:
    good = letter("x")
    garbage = [b"no header", header(UNKNOWN_SCHEMA) + good[5:], good[:-4], b""]
    produce(stack.kafka, topic, [letter("first"), *garbage, letter("last")])
    for _ in range(2):
        tail = Tail(stack.kafka, topic, "electrored.test")
        assert reasons(tail) == ["first", "last"]
        assert reasons(tail) == []
        assert tail.unreadable == len(garbage)
        tail.close()


def test_what_was_fetched_while_the_registry_was_away_is_given_when_it_is_back(
    stack: Embedded, topic: Topic, letter: Callable[[str], bytes]
) -> None:
    produce(stack.kafka, topic, [letter(str(n)) for n in range(5)])
    tail = Tail(stack.kafka, topic, "electrored.test")
    (port,) = ports.free(1)
    away = Registry(stack.kafka.model_copy(update={"schema_registry_url": f"http://127.0.0.1:{port}"}))
    registry, tail._codec._registry = tail._codec._registry, away
    # As of values whose writer has not been looked up yet.
    tail._codec._writers.clear()
    for _ in range(2):
        with pytest.raises(Unreachable):
            reasons(tail)
    tail._codec._registry = registry
    assert reasons(tail) == ["0", "1", "2", "3", "4"]
    assert tail.unreadable == 0
    tail.close()


def test_who_stops_in_the_middle_is_given_the_rest(
    stack: Embedded, topic: Topic, letter: Callable[[str], bytes]
) -> None:
    produce(stack.kafka, topic, [letter(str(n)) for n in range(5)])
    tail = Tail(stack.kafka, topic, "electrored.test")
    for _, value in tail.read():
        assert isinstance(value, dict)
        if value["reason"] == "2":
            break
    assert reasons(tail) == ["2", "3", "4"], "that it was handled nobody said"
    produce(stack.kafka, topic, [letter("5")])
    assert reasons(tail) == ["5"]
    tail.close()


def test_of_many_dead_letters_the_newest_are_read_and_known_again(
    stack: Embedded, topic: Topic, letter: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_topics(stack.kafka, PUBLIC)
    monkeypatch.setattr(probes, "DEAD_LETTERS", topic)
    monkeypatch.setattr(probes, "MOST_LETTERS", 500)
    many = [letter("amount")] * 2_000
    produce(stack.kafka, topic, many, prefix="a")

    def count(ledger: Ledger) -> float:
        (found,) = (one.value for one in ledger.probe() if one.name == "electrored_dead_letters_total")
        return found

    ledger = Ledger(stack.kafka)
    # One of the offsets is the marker's.
    assert count(ledger) == 499
    produce(stack.kafka, topic, many[:400], prefix="b")
    assert count(ledger) == 899
    produce(stack.kafka, topic, many[:400], prefix="b")
    assert count(ledger) == 899, "a second reader's are known"
    assert len(ledger._refused) == 500
    ledger.close()


def test_the_newest_letters_are_shown_the_oldest_of_them_first(
    stack: Embedded, topic: Topic, letter: Callable[[str], bytes]
) -> None:
    assert dead_letters.newest(stack.kafka, 2, topic) == []
    # Each in a transaction of its own, as a source writes them.
    for reason in ("first", "second", "third"):
        produce(stack.kafka, topic, [letter(reason)])
    found = dead_letters.newest(stack.kafka, 2, topic)
    assert [one["reason"] for one in found] == ["second", "third"]
    assert list(dead_letters.lines(found[0] | {"value": b"\xffbody"})) == [
        "sales-events partition 0 offset 1: second",
        "    '\\\\xffbody'",
    ]
