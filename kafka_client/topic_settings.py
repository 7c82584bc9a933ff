"""Checks of topic settings: results are only correct while the log is complete.

A wrong setting is corrected by `contracts setup`; every other process refuses to start. Deleted records cannot be
restored: nothing new is computed from the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client.clients import TIMEOUT_SECONDS, admin
from kafka_client.offsets import EARLIEST, LATEST, listed

MEND = "`python -m contracts setup` puts it right, `electrored up` does that first"


# The controller accepts a setting before the broker that is asked has read it from the metadata log.
APPLIED_SECONDS = 10.0


class NotKept(Exception):
    """Topics with wrong settings or lost records; the message names them and the remedy."""


@dataclass(frozen=True)
class Deviation:
    """A setting of a topic that differs from the catalogue."""

    topic: Topic
    setting: str
    value: str

    def __str__(self) -> str:
        wanted = self.topic.kept[self.setting]
        return f"topic {self.topic.name}: {self.setting} is {self.value} and has to be {wanted}"


@dataclass(frozen=True)
class Loss:
    """The first offset that a partition still has; the records below were deleted."""

    topic: Topic
    partition: int
    begins: int

    def __str__(self) -> str:
        return (
            f"topic {self.topic.name} partition {self.partition} begins at offset {self.begins}: the records before it "
            "were deleted"
        )


def deviations(client: AdminClient, topics: Iterable[Topic]) -> list[Deviation]:
    """Settings in Kafka that differ from the catalogue; one that Kafka does not report is skipped.

    Raises KafkaException.
    """
    wanted = {topic.name: topic for topic in topics}
    configs = client.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in wanted], request_timeout=TIMEOUT_SECONDS
    )
    differing = []
    for resource, future in configs.items():
        topic, entries = wanted[resource.name], future.result()
        for setting, value in topic.kept.items():
            entry = entries.get(setting)
            if entry is not None and not _same(setting, entry.value or "", value):
                differing.append(Deviation(topic, setting, str(entry.value)))
    return differing


def losses(client: AdminClient, topics: Iterable[Topic]) -> list[Loss]:
    """Partitions of whole topics that do not begin at 0. Raises KafkaException."""
    by_name = {topic.name: topic for topic in topics if topic.whole}
    first = _offsets(client, by_name.values(), EARLIEST)
    return [
        Loss(by_name[place.topic], place.partition, offset)
        for place, offset in sorted(first.items(), key=lambda item: (item[0].topic, item[0].partition))
        if offset > 0
    ]


def check(settings: KafkaSettings, topics: Sequence[Topic], *, whole: Sequence[Topic] = ()) -> None:
    """Raise NotKept for a wrong setting, or if one of `whole` does not begin at 0. Raises KafkaException."""
    client = admin(settings)
    if differing := deviations(client, topics):
        raise NotKept(f"{_listed(differing)}; {MEND}")
    if lost := losses(client, whole):
        raise NotKept(explained(lost))


def explained(lost: Sequence[Loss]) -> str:
    """The message of lost records, with the remedy."""
    return (
        f"{_listed(lost)}, and what is computed from the rest would be wrong. Restore the topic from a backup of "
        "Kafka, or begin anew with empty topics and an empty results database, see docs/runbooks/TopicNotKept.md"
    )


def existing(settings: KafkaSettings, topics: Iterable[Topic]) -> list[Topic]:
    """The topics that exist. Raises KafkaException."""
    known = admin(settings).list_topics(timeout=TIMEOUT_SECONDS).topics
    return [topic for topic in topics if topic.name in known]


def mend(settings: KafkaSettings, topics: Sequence[Topic]) -> list[Deviation]:
    """Correct the settings; returns the deviations that there were.

    Raises NotKept for a log that was compacted, because removed records leave no trace, and where Kafka accepts a
    setting without applying it. Raises KafkaException, also where the broker refuses the setting.
    """
    client = admin(settings)
    differing = deviations(client, topics)
    if not differing:
        return []
    compacted = [deviation.topic for deviation in differing if _was_compacted(deviation)]
    last = _offsets(client, compacted, LATEST)
    if used := sorted({place.topic for place, offset in last.items() if offset > 0}):
        name = used[0]
        raise NotKept(
            f"topic {name} was compacted, and it is the log that everything is computed from: sales of which a later "
            "event came may be gone, and nothing shows which. If it is certain that nothing was removed yet: "
            f"kafka-configs.sh --bootstrap-server {settings.kafka_bootstrap} --alter --topic {name} --add-config "
            "cleanup.policy=delete, and start again; see docs/runbooks/TopicNotKept.md"
        )
    changed = client.incremental_alter_configs(
        [
            ConfigResource(
                ResourceType.TOPIC,
                name,
                incremental_configs=[
                    ConfigEntry(
                        deviation.setting,
                        deviation.topic.kept[deviation.setting],
                        incremental_operation=AlterConfigOpType.SET,
                    )
                    for deviation in differing
                    if deviation.topic.name == name
                ],
            )
            for name in sorted({deviation.topic.name for deviation in differing})
        ],
        request_timeout=TIMEOUT_SECONDS,
    )
    for future in changed.values():
        future.result()
    deadline = time.monotonic() + APPLIED_SECONDS
    while left := deviations(client, [deviation.topic for deviation in differing]):
        if time.monotonic() > deadline:
            raise NotKept(
                f"{_listed(left)}, and Kafka did not take it: does a policy of the cluster forbid it?"
            )
        time.sleep(0.1)
    return differing


def _was_compacted(deviation: Deviation) -> bool:
    is_log = (
        deviation.topic.whole
        and deviation.setting == "cleanup.policy"
        and deviation.topic.kept[deviation.setting] == "delete"
    )
    return is_log and "compact" in deviation.value


def _same(setting: str, value: str, wanted: str) -> bool:
    """`cleanup.policy` is a list, and its order means nothing."""
    return set(value.replace(" ", "").split(",")) == set(wanted.split(","))


def _offsets(client: AdminClient, topics: Iterable[Topic], spec: OffsetSpec) -> dict[TopicPartition, int]:
    places = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
    return listed(client, places, spec)


def _listed(faults: Sequence[Deviation] | Sequence[Loss]) -> str:
    return "; ".join(map(str, faults))
