"""Whether topics are kept as the design says: what is computed from a log is only right while the log is whole.

A setting that is another one is put right by `contracts setup`; everybody else refuses to start. Records that are gone
cannot be put back: nothing new is computed from what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka import IsolationLevel, TopicPartition
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

MEND = "`python -m contracts setup` puts it right, `electrored up` does that first"


class NotKept(Exception):
    """Topics that are not kept as the design says; the message says which, how, and what a person can do."""


@dataclass(frozen=True)
class Deviation:
    """A setting of a topic that is another one than it has to be."""

    topic: Topic
    setting: str
    value: str

    def __str__(self) -> str:
        wanted = self.topic.kept[self.setting]
        return f"topic {self.topic.name}: {self.setting} is {self.value} and has to be {wanted}"


@dataclass(frozen=True)
class Loss:
    """The first offset that a partition still has; the records below are gone."""

    topic: Topic
    partition: int
    begins: int

    def __str__(self) -> str:
        return (
            f"topic {self.topic.name} partition {self.partition} begins at offset {self.begins}: the records before it "
            "were deleted"
        )


def deviations(client: AdminClient, topics: Iterable[Topic]) -> list[Deviation]:
    """What Kafka says otherwise than the catalogue; a setting that it does not know says nothing.

    Raises KafkaException.
    """
    wanted = {topic.name: topic for topic in topics}
    asked = client.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in wanted], request_timeout=TIMEOUT_SECONDS
    )
    differing = []
    for resource, future in asked.items():
        topic, entries = wanted[resource.name], future.result()
        for setting, value in topic.kept.items():
            entry = entries.get(setting)
            if entry is not None and not _same(setting, entry.value or "", value):
                differing.append(Deviation(topic, setting, str(entry.value)))
    return differing


def losses(client: AdminClient, topics: Iterable[Topic]) -> list[Loss]:
    """Partitions of whole topics that do not begin at 0. Raises KafkaException."""
    by_name = {topic.name: topic for topic in topics if topic.whole}
    first = _offsets(client, by_name.values(), OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    return [
        Loss(by_name[place.topic], place.partition, offset)
        for place, offset in sorted(first.items(), key=lambda found: (found[0].topic, found[0].partition))
        if offset > 0
    ]


def check(settings: KafkaSettings, topics: Sequence[Topic], *, whole: Sequence[Topic] = ()) -> None:
    """Raise NotKept unless all are kept as they have to be, and those in `whole` begin at 0. Raises KafkaException."""
    client = admin(settings)
    if differing := deviations(client, topics):
        raise NotKept(f"{_listed(differing)}; {MEND}")
    if lost := losses(client, whole):
        raise NotKept(explained(lost))


def explained(lost: Sequence[Loss]) -> str:
    """What was lost and the way on."""
    return (
        f"{_listed(lost)}, and what is computed from the rest would be wrong. Restore the topic from a backup of "
        "Kafka, or begin anew with empty topics and an empty results database, see docs/runbooks/TopicNotKept.md"
    )


def existing(settings: KafkaSettings, topics: Iterable[Topic]) -> list[Topic]:
    """Those that are there. Raises KafkaException."""
    known = admin(settings).list_topics(timeout=TIMEOUT_SECONDS).topics
    return [topic for topic in topics if topic.name in known]


def mend(settings: KafkaSettings, topics: Sequence[Topic]) -> list[Deviation]:
    """Put the settings right; gives what they were.

    Raises NotKept for a log that was compacted, because what that took out leaves no trace, and where Kafka takes the
    setting without keeping it. Raises KafkaException, also where the broker refuses the setting.
    """
    client = admin(settings)
    differing = deviations(client, topics)
    if not differing:
        return []
    compacted = [found.topic for found in differing if _was_compacted(found)]
    last = _offsets(client, compacted, OffsetSpec.latest())  # type: ignore[no-untyped-call]
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
                        found.setting,
                        found.topic.kept[found.setting],
                        incremental_operation=AlterConfigOpType.SET,
                    )
                    for found in differing
                    if found.topic.name == name
                ],
            )
            for name in sorted({found.topic.name for found in differing})
        ],
        request_timeout=TIMEOUT_SECONDS,
    )
    for future in changed.values():
        future.result()
    if left := deviations(client, [found.topic for found in differing]):
        raise NotKept(f"{_listed(left)}, and Kafka did not take it: does a policy of the cluster forbid it?")
    return differing


def _was_compacted(found: Deviation) -> bool:
    is_log = (
        found.topic.whole
        and found.setting == "cleanup.policy"
        and found.topic.kept[found.setting] == "delete"
    )
    return is_log and "compact" in found.value


def _same(setting: str, value: str, wanted: str) -> bool:
    """`cleanup.policy` is a list, and its order means nothing."""
    return set(value.replace(" ", "").split(",")) == set(wanted.split(","))


def _offsets(client: AdminClient, topics: Iterable[Topic], spec: OffsetSpec) -> dict[TopicPartition, int]:
    places = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
    if not places:
        return {}
    asked = client.list_offsets(
        dict.fromkeys(places, spec),
        isolation_level=IsolationLevel.READ_UNCOMMITTED,
        request_timeout=TIMEOUT_SECONDS,
    )
    return {place: int(future.result().offset) for place, future in asked.items()}


def _listed(found: Sequence[Deviation] | Sequence[Loss]) -> str:
    return "; ".join(map(str, found))
