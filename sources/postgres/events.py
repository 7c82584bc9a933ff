"""The topic of the events: the one that the stored position was written with, and no other of its name."""

from __future__ import annotations

from confluent_kafka import KafkaException

from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client import clients
from kafka_client.errors import Refused
from sources.position_store import check_kept, meaning


class EventsTopic:
    """The events' topic, as the broker describes it."""

    def __init__(self, settings: KafkaSettings, topic: Topic) -> None:
        self._settings = settings
        self._topic = topic
        self._name = topic.name

    def identity(self) -> tuple[str, int]:
        """Its id and partition count, at a start.

        Raises Retriable without an answer, Refused without the right or if the topic does not keep what is written.
        """
        check_kept(self._settings, self._topic)
        return self._described()

    def _described(self) -> tuple[str, int]:
        try:
            return clients.describe_topics(self._settings, [self._name])[self._name]
        except KafkaException as error:
            raise meaning(error) from error

    def check(self, known: tuple[str, int]) -> None:
        """Raise Refused when it has changed: earlier events would be lost, or their keys in other partitions."""
        topic_id, partitions = self._described()
        if topic_id != known[0]:
            raise Refused(
                f"the topic {self._name} was recreated: its id was {known[0]} and is {topic_id}, and what was "
                "captured before is not in it. Start anew with another slot and empty topics"
            )
        if partitions != known[1]:
            raise Refused(
                f"the topic {self._name} had {known[1]} partitions and has {partitions}: the events of a sale would be "
                "in two of them. Start anew with another slot and empty topics"
            )
