"""A registry that is away is waited for; one that refuses is one line: what, where and what to do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from contracts.settings import KafkaSettings
from kafka_client.errors import Fatal, Retriable
from kafka_client.registry import Registry
from kafka_client.writer_schemas import LostSchema, UnknownSchema
from observability.waits import WAITS, Cancelled
from sources.position_store import registry_answers
from streaming.engine.schemas import PatientRegistry

URL = "http://registry:8081"


def registry(stop: threading.Event | None = None) -> PatientRegistry:
    settings = KafkaSettings(kafka_bootstrap="kafka:9092", schema_registry_url=URL)
    return PatientRegistry(settings, stop)


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Exception | int) -> Callable[[], int]:
    """The client's answers one by one; returns the number of requests."""
    left = list(answers)

    def answer(_client: object, _subject: str, _schema: object) -> int:
        now = left.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    monkeypatch.setattr(SchemaRegistryClient, "register_schema", answer)
    return lambda: len(answers) - len(left)


@pytest.mark.parametrize(
    "error",
    [httpx2.ConnectError("connection refused"), httpx2.ReadTimeout("timed out"),
     SchemaRegistryError(503, 50301, "starting"), SchemaRegistryError(429, 42901, "slowly")],
)  # fmt: skip
def test_a_registry_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked = answering(monkeypatch, error, error, 7)
    assert registry().register("sales-events-value", {"type": "string"}) == 7
    assert asked() == 3


@pytest.mark.parametrize(
    ("status", "answer"), [(401, "who are you"), (403, "no"), (409, "incompatible\nschema")]
)
def test_a_registry_that_refuses_is_fatal_with_one_line(
    monkeypatch: pytest.MonkeyPatch, status: int, answer: str
) -> None:
    asked = answering(monkeypatch, SchemaRegistryError(status, status * 100, answer), 7)
    with pytest.raises(Fatal) as raised:
        registry().register("sales-events-value", {"type": "string"})
    line = str(raised.value)
    assert "\n" not in line
    parts = (URL, "sales-events-value", answer.split()[0], "ELECTRORED_SCHEMA_REGISTRY_URL")
    assert all(part in line for part in parts)
    assert asked() == 1


def test_an_unknown_id_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_client: object, _id: int) -> None:
        raise SchemaRegistryError(404, 40403, "schema not found")

    monkeypatch.setattr(SchemaRegistryClient, "get_schema", unknown)
    with pytest.raises(UnknownSchema, match="schema id 1 is unknown to the registry"):
        registry().schema(1)


def test_a_refused_connection_is_away_by_the_clients_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library chooses the HTTP client, and its errors are that client's."""
    nowhere = KafkaSettings(kafka_bootstrap="kafka:9092", schema_registry_url="http://127.0.0.1:1")
    stop = threading.Event()
    warned: list[str] = []

    def warn(_: object, state: object) -> None:
        warned.append(str(state))
        stop.set()

    monkeypatch.setattr(PatientRegistry, "_warn", warn)
    patient = PatientRegistry(nowhere, stop)
    # Its own attempts would take seconds.
    monkeypatch.setattr(patient._client._rest_client, "max_retries", 0)
    with pytest.raises(Cancelled):
        patient.register("sales-events-value", {"type": "string"})
    assert len(warned) == 1


def test_stopped_it_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    stop.set()
    answering(monkeypatch, *[httpx2.ConnectError("connection refused")] * 3)
    with pytest.raises(Cancelled):
        registry(stop).register("sales-events-value", {"type": "string"})


@pytest.fixture
def silent() -> Iterator[KafkaSettings]:
    """A registry that takes connections and never answers, as a stopped process does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield KafkaSettings(kafka_bootstrap="kafka:9092", schema_registry_url=url)


def test_row_25_a_registry_that_never_answers_is_a_wait(
    silent: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kafka_client.registry.ANSWER_SECONDS", 0.05)
    stop = threading.Event()
    patient = PatientRegistry(silent, stop)
    monkeypatch.setattr(patient._client._rest_client, "max_retries", 0)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(patient.schema, 3)
        deadline = time.monotonic() + 30
        details: set[str] = set()
        while not details and time.monotonic() < deadline:
            details |= {wait.detail for wait in WAITS.current()}
            time.sleep(0.01)
        stop.set()
        with pytest.raises(Cancelled):
            asked.result(30)
    (detail,) = details
    assert silent.schema_registry_url in detail
    assert "start it" in detail
    assert WAITS.current() == []


def test_row_25_a_source_reports_the_same(silent: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its error: capture waits for what that names."""
    monkeypatch.setattr("kafka_client.registry.ANSWER_SECONDS", 0.05)
    with pytest.raises(Retriable, match="the schema registry does not answer") as error, registry_answers():
        Registry(silent).register("sales-events-value", {"type": "string"})
    assert error.value.on == "registry"


def test_row_23_a_lost_id_is_waited_for_until_it_is_put_back_or_the_process_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streaming.engine.schemas.LOST_SECONDS", 0.01)
    stop = threading.Event()
    patient = registry(stop)
    details: list[str] = []

    def found() -> bool:
        details.extend(wait.detail for wait in WAITS.current())
        return len(details) >= 2

    patient.wait_for(LostSchema(11, "SaleEvent"), found)
    assert "schema id 11 to SaleEvent" in details[0]
    assert WAITS.current() == []
    stop.set()
    with pytest.raises(Cancelled):
        patient.wait_for(LostSchema(11, "SaleEvent"), lambda: False)
    assert WAITS.current() == []
