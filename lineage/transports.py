"""Where events go: what openlineage-python's own settings say, and without any the topic `openlineage-events`."""

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

# The backend answers within it, or it is away and asked again.
ANSWER_SECONDS = 5.0
# What is wrong with the event itself: to ask again would hold back every later one for ever.
_REFUSED = frozenset({400, 413, 422})
_REFUSED_BY_KAFKA = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD}
)


class NotDelivered(Exception):
    """The backend did not take the event; it is kept."""


def lanes(kafka: KafkaSettings | None) -> dict[str, Send]:
    """By name, how an event is handed to each transport that is set; none if OPENLINEAGE_DISABLED says so."""
    # Only to ask what is set, in the environment or in a file: without anything it would print events.
    asked = OpenLineageClient(transport=NoopTransport(NoopConfig()))
    wanted = asked.config.transport or {}
    if wanted.get("type"):
        transport = get_default_factory().create(_connected(wanted, kafka))
    elif kafka is None or _is_disabled():
        return {}
    else:
        transport = KafkaTransport(KafkaConfig(_producer_config(kafka), OPENLINEAGE_EVENTS.name, flush=False))
    # Each for itself: as one, a composite calls an event sent when one of its transports took it.
    found = transport.transports if isinstance(transport, CompositeTransport) else [transport]
    return {
        f"{number}-{each.name or each.kind}": _sending(each)
        for number, each in enumerate(found)
        if not isinstance(each, NoopTransport)
    }


def _connected(wanted: Mapping[str, Any], kafka: KafkaSettings | None) -> dict[str, Any]:
    """What is set; a topic of which no broker is said is on this process's own, with its user and password.

    `async_http` becomes `http`: it takes an event before it sends it, and only logs what then fails, so that an event
    would be lost that waits here. Who sends has a thread of its own already.
    """
    found = dict(wanted)
    if found.get("type") == "async_http":
        found["type"] = "http"
    if isinstance(wrapped := found.get("transport"), Mapping):
        found["transport"] = _connected(wrapped, kafka)
    below = found.get("transports")
    if isinstance(below, Mapping):
        found["transports"] = {name: _connected(each, kafka) for name, each in below.items()}
    elif below is not None:
        found["transports"] = [_connected(each, kafka) for each in below]
    if (
        found.get("type") == "kafka"
        and kafka is not None
        and "bootstrap.servers" not in found.get("config", {})
    ):
        found["config"] = _producer_config(kafka) | found.get("config", {})
    return found


def _is_disabled() -> bool:
    # The client itself would warn that it prints events when nothing else is set.
    return isinstance(get_default_factory().create({"type": "console"}), NoopTransport)


def _producer_config(kafka: KafkaSettings) -> dict[str, Any]:
    # The lane says once that the broker is away; librdkafka would say it of each attempt, twenty times a second.
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
    """A producer that keeps what the broker refused: the transport tells that to its log, and goes on."""

    refused: KafkaError | None = None

    def produce(self, *arguments: Any, **more: Any) -> None:
        self.refused = None
        super().produce(*arguments, **(more | {"on_delivery": self._note}))

    def _note(self, error: KafkaError | None, _: Message) -> None:
        self.refused = error


class _Kafka:
    """Returns when the broker has the event; the transport itself would wait for ever, or for nothing."""

    def __init__(self, client: OpenLineageClient, transport: KafkaTransport) -> None:
        self._client = client
        self._transport = transport
        # Whatever its own settings say: what librdkafka gives up after a time is lost.
        transport.flush = False
        transport.close(0)
        self._producer = _Answered(transport.kafka_config.config | {"message.timeout.ms": 0})
        transport.producer = self._producer
        # Handed to the client and not yet acknowledged: given once more it would be there twice.
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
        """Raise while the topic is not there: the client would wait some time, and then lose the event."""
        known = self._producer.list_topics(self._transport.topic, ANSWER_SECONDS).topics[
            self._transport.topic
        ]
        if known.error is not None:
            raise NotDelivered(f"{self._transport.topic}: {known.error.str()}")
