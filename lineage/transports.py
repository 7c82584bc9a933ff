"""Transports of events: those of openlineage-python's own settings, by default the topic `openlineage-events`."""

from __future__ import annotations

from typing import Any, ClassVar

import requests
from confluent_kafka import KafkaError, Message
from openlineage.client import OpenLineageClient
from openlineage.client.client import Event
from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde
from openlineage.client.transport import Transport, get_default_factory, register_transport
from openlineage.client.transport.async_http import AsyncHttpTransport
from openlineage.client.transport.composite import CompositeTransport
from openlineage.client.transport.http import HttpTransport
from openlineage.client.transport.kafka import KafkaTransport
from openlineage.client.transport.msk_iam import MSKIAMTransport
from openlineage.client.transport.noop import NoopConfig, NoopTransport

from contracts.settings import KafkaSettings
from contracts.topics import OPENLINEAGE_EVENTS
from kafka_client.clients import client_config
from lineage.delivery import Send
from lineage.events import EventRefused

# A backend that does not answer within it is down, and is retried.
ANSWER_SECONDS = 5.0
# The event itself is wrong: a retry would hold back every later one for ever.
_REFUSED = frozenset({400, 413, 422})
_REFUSED_BY_KAFKA = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD}
)

# Accepts an event before sending it and only logs a failure, which would lose events; each lane has a thread already.
get_default_factory().register_transport(AsyncHttpTransport.kind, HttpTransport)


class NotDelivered(Exception):
    """The backend did not take the event; it is kept."""


@register_transport
class AcknowledgedKafka(KafkaTransport):
    """Returns when the broker has the event; the client's own transport waits for ever, or only logs a failure."""

    # This process's Kafka, with its user and password: for a configuration without a broker.
    own: ClassVar[dict[str, Any]] = {}
    # Produced and not yet acknowledged: produced again it would be in the topic twice.
    _handed: Event | None = None
    _error: KafkaError | None = None

    def emit(self, event: Event) -> None:
        assert self.producer is not None
        if event != self._handed:
            # While the topic does not exist the client would wait some time, and then lose the event.
            topic = self.producer.list_topics(self.topic, ANSWER_SECONDS).topics[self.topic]
            if topic.error is not None:
                raise NotDelivered(f"{self.topic}: {topic.error.str()}")
            key = self.message_key or self._get_message_key(event)
            value = Serde.to_json(event).encode()
            self.producer.produce(self.topic, value, key, on_delivery=self._acknowledge)
            self._handed = event
        if not self.wait_for_completion(ANSWER_SECONDS):
            raise NotDelivered("Kafka does not answer")
        self._handed = None
        if self._error is not None:
            raise (EventRefused if self._error.code() in _REFUSED_BY_KAFKA else NotDelivered)(
                self._error.str()
            )

    def _acknowledge(self, error: KafkaError | None, _: Message) -> None:
        self._error = error

    def _setup_producer(self, config: dict[str, Any]) -> None:
        if "bootstrap.servers" not in config:
            config = self.own | config
        # Whatever the configuration: an event that librdkafka gives up is lost.
        super()._setup_producer(config | {"message.timeout.ms": 0})


@register_transport
class AcknowledgedMsk(AcknowledgedKafka, MSKIAMTransport):
    """The same with Amazon's tokens."""

    kind = MSKIAMTransport.kind


def queues(kafka: KafkaSettings | None) -> dict[str, Send]:
    """By name, how an event is delivered to each configured transport; none with OPENLINEAGE_DISABLED."""
    # Only reads the configuration, from the environment or a file: without any the client would print events.
    wanted = OpenLineageClient(transport=NoopTransport(NoopConfig())).config.transport or {}
    if not wanted.get("type"):
        if kafka is None:
            return {}
        wanted = {"type": "kafka", "topic": OPENLINEAGE_EVENTS.name, "config": {}}
    # A lane logs once that the broker is down; librdkafka would log each attempt, twenty times a second.
    own = {"enable.idempotence": True, "log_level": 2}
    AcknowledgedKafka.own = {} if kafka is None else client_config(kafka) | own
    transport = get_default_factory().create(dict(wanted))
    # Each for itself: a composite counts an event as sent when one of its transports took it.
    transports = transport.transports if isinstance(transport, CompositeTransport) else [transport]
    return {
        f"{number}-{each.name or each.kind}": _sending(each)
        for number, each in enumerate(transports)
        if not isinstance(each, NoopTransport)
    }


def _sending(transport: Transport) -> Send:
    client = OpenLineageClient(transport=transport)

    def send(event: RunEvent) -> None:
        try:
            client.emit(event)
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code in _REFUSED:
                raise EventRefused(str(error)) from error
            raise

    return send
