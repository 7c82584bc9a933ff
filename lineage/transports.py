"""Transports of events: those of openlineage-python's own settings, by default the topic `openlineage-events`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from confluent_kafka import KafkaError, Message, Producer
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import RunEvent
from openlineage.client.transport import Transport, get_default_factory
from openlineage.client.transport.composite import CompositeTransport
from openlineage.client.transport.kafka import KafkaConfig, KafkaTransport
from openlineage.client.transport.noop import NoopConfig, NoopTransport

from contracts.settings import KafkaSettings
from contracts.topics import OPENLINEAGE_EVENTS
from kafka_client.clients import client_config
from lineage.outbox import EventRefused, Send

# A backend that does not answer within it is down, and is retried.
ANSWER_SECONDS = 5.0
# The event itself is wrong: a retry would hold back every later one for ever.
_REFUSED = frozenset({400, 413, 422})
_REFUSED_BY_KAFKA = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD}
)


class NotDelivered(Exception):
    """The backend did not take the event; it is kept."""


def queues(kafka: KafkaSettings | None) -> dict[str, Send]:
    """By name, how an event is delivered to each configured transport; none with OPENLINEAGE_DISABLED."""
    # Only reads the configuration, from the environment or a file: without any the client would print events.
    client = OpenLineageClient(transport=NoopTransport(NoopConfig()))
    wanted = client.config.transport or {}
    if wanted.get("type"):
        transport = get_default_factory().create(_connected(wanted, kafka))
    elif kafka is None or _is_disabled():
        return {}
    else:
        transport = KafkaTransport(KafkaConfig(_producer_config(kafka), OPENLINEAGE_EVENTS.name, flush=False))
    # Each for itself: a composite counts an event as sent when one of its transports took it.
    transports = transport.transports if isinstance(transport, CompositeTransport) else [transport]
    return {
        f"{number}-{each.name or each.kind}": _sending(each)
        for number, each in enumerate(transports)
        if not isinstance(each, NoopTransport)
    }


def _connected(wanted: Mapping[str, Any], kafka: KafkaSettings | None) -> dict[str, Any]:
    """The configuration; a Kafka transport without a broker gets this process's, with its user and password.

    `async_http` becomes `http`: it accepts an event before sending it and only logs a failure, which would lose events.
    Each queue has a thread of its own already.
    """
    config = dict(wanted)
    if config.get("type") == "async_http":
        config["type"] = "http"
    if isinstance(wrapped := config.get("transport"), Mapping):
        config["transport"] = _connected(wrapped, kafka)
    below = config.get("transports")
    if isinstance(below, Mapping):
        config["transports"] = {name: _connected(each, kafka) for name, each in below.items()}
    elif below is not None:
        config["transports"] = [_connected(each, kafka) for each in below]
    if (
        config.get("type") == "kafka"
        and kafka is not None
        and "bootstrap.servers" not in config.get("config", {})
    ):
        config["config"] = _producer_config(kafka) | config.get("config", {})
    return config


def _is_disabled() -> bool:
    # The client itself would warn that it prints events when no transport is set.
    return isinstance(get_default_factory().create({"type": "console"}), NoopTransport)


def _producer_config(kafka: KafkaSettings) -> dict[str, Any]:
    # The queue logs once that the broker is down; librdkafka would log each attempt, twenty times a second.
    return client_config(kafka) | {"enable.idempotence": True, "log_level": 2}


def _sending(transport: Transport) -> Send:
    client = OpenLineageClient(transport=transport)
    if isinstance(transport, KafkaTransport):
        return _Kafka(client, transport)

    def send(event: RunEvent) -> None:
        try:
            client.emit(event)
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code in _REFUSED:
                raise EventRefused(str(error)) from error
            raise

    return send


class _Answered(Producer):
    """A producer that keeps the delivery error, which the transport only logs."""

    refused: KafkaError | None = None

    def produce(self, *arguments: Any, **more: Any) -> None:
        self.refused = None
        super().produce(*arguments, **(more | {"on_delivery": self._note}))

    def _note(self, error: KafkaError | None, _: Message) -> None:
        self.refused = error


class _Kafka:
    """Returns when the broker has the event; the transport itself would wait for ever, or not at all."""

    def __init__(self, client: OpenLineageClient, transport: KafkaTransport) -> None:
        self._client = client
        self._transport = transport
        # Whatever the configuration: an event that librdkafka gives up is lost.
        transport.flush = False
        transport.close(0)
        self._producer = _Answered(transport.kafka_config.config | {"message.timeout.ms": 0})
        transport.producer = self._producer
        # Produced and not yet acknowledged: produced again it would be in the topic twice.
        self._handed: tuple[str, str, str] | None = None

    def __call__(self, event: RunEvent) -> None:
        event_type = event.eventType.value if event.eventType else ""
        identity = (event.run.runId, event_type, event.eventTime)
        if self._handed != identity:
            self._check_topic()
            self._client.emit(event)
            self._handed = identity
        if not self._transport.wait_for_completion(ANSWER_SECONDS):
            raise NotDelivered("Kafka does not answer")
        self._handed = None
        if (refused := self._producer.refused) is not None:
            if refused.code() in _REFUSED_BY_KAFKA:
                raise EventRefused(refused.str())
            raise NotDelivered(refused.str())

    def _check_topic(self) -> None:
        """Raise while the topic does not exist: the client would wait some time, and then lose the event."""
        known = self._producer.list_topics(self._transport.topic, ANSWER_SECONDS).topics[
            self._transport.topic
        ]
        if known.error is not None:
            raise NotDelivered(f"{self._transport.topic}: {known.error.str()}")
