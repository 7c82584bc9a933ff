"""The producer of an open transaction is a detail of a sentence: without an answer the worker goes on."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from contracts.settings import KafkaSettings
from kafka_client import open_producers
from streaming.engine import opened

KAFKA = KafkaSettings(kafka_bootstrap="127.0.0.1:1", schema_registry_url="http://127.0.0.1:1")


@pytest.fixture
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first open record does not come."""
    monkeypatch.setattr(opened, "REQUEST_SECONDS", 0.1)


def described() -> str:
    return opened.described(KAFKA, "group", ("log", 3), 7)


def leads(monkeypatch: pytest.MonkeyPatch, leader: int, port: int) -> None:
    """Kafka's answer about the topic: who leads the partition, and where the one broker listens."""
    topic = SimpleNamespace(partitions={3: SimpleNamespace(leader=leader)})
    brokers = {1: SimpleNamespace(host="127.0.0.1", port=port)}
    cluster = SimpleNamespace(topics={"log": topic}, brokers=brokers)
    monkeypatch.setattr(
        open_producers, "admin", lambda _: SimpleNamespace(list_topics=lambda *_, **__: cluster)
    )


@pytest.fixture
def answering() -> Iterator[tuple[int, list[bytes]]]:
    """A broker that gives one answer to every request."""
    answers: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1_000)
            connection.sendall(struct.pack(">i", len(answers[0])) + answers[0])

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], answers
        thread.join(10)


@pytest.mark.usefixtures("no_broker")
@pytest.mark.parametrize(
    "answer", [b"", b"\0" * 10, b"\0" * 19, b"\0" * 14 + b"\xff" * 40, b"\0" * 16 + b"\1\x09"]
)
def test_an_answer_that_is_cut_off_leaves_a_sentence_without_details(
    monkeypatch: pytest.MonkeyPatch, answering: tuple[int, list[bytes]], answer: bytes
) -> None:
    port, answers = answering
    answers.append(answer)
    leads(monkeypatch, 1, port)
    sentence = described()
    assert sentence.startswith(
        "topic log partition 3: a transaction is open, and what stands behind its beginning "
    )
    assert "abort --topic log --partition 3 --start-offset 7` ends it" in sentence


@pytest.mark.usefixtures("no_broker")
def test_a_partition_without_a_leader_leaves_a_sentence_without_details(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leads(monkeypatch, -1, 1)
    with pytest.raises(OSError, match="topic log partition 3 has no leader"):
        open_producers.open_producers(KAFKA, "log", 3)
    assert "a transaction is open, and" in described()


@pytest.mark.parametrize("error", [KafkaException(KafkaError(KafkaError._FAIL)), OverflowError("a year")])
def test_a_first_record_that_cannot_be_read_leaves_a_sentence_without_details(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(opened, "_written_at", failing)
    assert "a transaction is open, and" in described()


def test_an_end_is_no_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(opened, "_written_at", interrupted)
    with pytest.raises(KeyboardInterrupt):
        described()
