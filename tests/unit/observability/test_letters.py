"""Dead letters for a person: an answer that does not come says what is missing."""

from __future__ import annotations

from typing import NoReturn

import pytest
from confluent_kafka import KafkaError, KafkaException

from observability import letters


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "the right to Read the topic dead-letters is missing"),
        (
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            "the right to Describe the group electrored.letters is missing",
        ),
        (KafkaError._AUTHENTICATION, "the right password of ELECTRORED_KAFKA_SASL_USERNAME is missing"),
        (KafkaError._TRANSPORT, "Kafka does not answer"),
    ],
)
def test_no_answer_has_a_reason(monkeypatch: pytest.MonkeyPatch, code: int, said: str) -> None:
    monkeypatch.setenv("ELECTRORED_KAFKA_BOOTSTRAP", "broker.example.com:9092")
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", "https://registry.example.com")

    def refuse(*_: object) -> NoReturn:
        raise KafkaException(KafkaError(code))

    monkeypatch.setattr(letters, "newest", refuse)
    with pytest.raises(SystemExit) as ended:
        letters.main(1)
    assert said in str(ended.value)
