"""The printed dead letters; without a response the reason is reported."""

from __future__ import annotations

from typing import NoReturn

import pytest
from confluent_kafka import KafkaError, KafkaException

from observer import dead_letters


def test_row_28_a_letter_is_shown_once_though_every_pipeline_writes_it() -> None:
    """One that refuses it for another reason is another fact."""
    first = {"origin": "sales-events", "partition": 0, "offset": 7, "reason": "no event", "value": b"x"}
    second, other = first | {"offset": 9}, first | {"reason": "an empty city"}
    key, another = b"sales-events/0/7", b"sales-events/0/9"
    written = [
        (key, dict(first)),
        (another, second),
        (key, dict(first)),
        (key, other),
        (key, dict(first)),
        (another, None),
    ]
    assert dead_letters.distinct(written) == [first, second, other]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "the right to Read the topic dead-letters is missing"),
        (
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            "the right to Describe the group electrored.letters is missing",
        ),
        (KafkaError._AUTHENTICATION, "a valid credential of this process (ELECTRORED_KAFKA_…) is missing"),
        (KafkaError._TRANSPORT, "Kafka does not answer"),
    ],
)
def test_no_answer_has_a_reason(monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    monkeypatch.setenv("ELECTRORED_KAFKA_BOOTSTRAP", "broker.example.com:9092")
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", "https://registry.example.com")

    def refuse(*_: object) -> NoReturn:
        raise KafkaException(KafkaError(code))

    monkeypatch.setattr(dead_letters, "newest", refuse)
    with pytest.raises(SystemExit) as ended:
        dead_letters.main(1)
    assert said in str(ended.value)
