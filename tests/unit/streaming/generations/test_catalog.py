"""Settings of topics are read until Kafka answers; a refusal is one line."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException

from contracts.settings import KafkaSettings
from kafka_client import topic_settings
from kafka_client.errors import Fatal
from observability.waits import WAITS, Cancelled
from streaming.generations import catalog
from streaming.generations.catalog import check_kept

KAFKA = KafkaSettings(kafka_bootstrap="broker:9092", schema_registry_url="http://registry")


def test_kafka_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "AGAIN_SECONDS", 0.01)
    seen: list[list[str]] = []
    stop = threading.Event()

    def check(*_: object, whole: object) -> None:
        seen.append([wait.detail for wait in WAITS.current()])
        if len(seen) < 3:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "broker down"))

    monkeypatch.setattr(topic_settings, "check", check)
    check_kept(KAFKA, [], whole=[], stop=stop)
    waits = ["Kafka does not return the settings of topics: broker down"]
    assert seen == [[], waits, waits]
    assert WAITS.current() == []
    seen.clear()
    with pytest.raises(KafkaException):
        check_kept(KAFKA, [], whole=[])
    stop.set()
    seen.clear()
    with pytest.raises(Cancelled):
        check_kept(KAFKA, [], whole=[], stop=stop)
    assert WAITS.current() == []


def test_a_right_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, whole: object) -> None:
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no"))

    monkeypatch.setattr(topic_settings, "check", refuse)
    with pytest.raises(Fatal, match="DescribeConfigs its topics"):
        check_kept(KAFKA, [], whole=[], stop=threading.Event())
