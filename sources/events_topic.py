"""The topic of the events: the one that the stored position was written with, and no other of its name."""

from __future__ import annotations

from confluent_kafka import KafkaException

from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client import clients
from kafka_client.errors import Refused
from kafka_client.topic_guard import Identity, difference
from sources.position_store import check_kept, meaning


class EventsTopic:
    """The events' topic, as the broker describes it."""

    def __init__(self, settings: KafkaSettings, topic: Topic) -> None:
        self._settings = settings
        self._topic = topic

    def identity(self) -> Identity:
        """Its id and partition count, at a start.

        Raises Retriable without an answer, Refused without the right or if the topic does not keep what is written.
        """
        check_kept(self._settings, self._topic)
        return self._described()

    def check(self, known: Identity, remedy: str, current: Identity | None = None) -> None:
        """Raise Refused when it has changed: earlier events would be lost, or their keys in other partitions."""
        changed = difference(self._topic.name, known, current or self._described())
        if changed is not None:
            raise Refused(f"{changed}: earlier events are not in it, or in other partitions. {remedy}")

    def _described(self) -> Identity:
        try:
            return clients.describe_topics(self._settings, [self._topic.name])[self._topic.name]
        except KafkaException as error:
            raise meaning(error) from error
