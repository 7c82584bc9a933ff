"""Whether a topic is the one that a position, a generation or a row of the database was made with."""

from __future__ import annotations

from confluent_kafka import KafkaError

from kafka_client.errors import RESTORING, Fatal

# A topic's id and its partition count: offsets mean another thing in one of another id, keys lie elsewhere in one of
# another count.
Identity = tuple[str, int]


def difference(topic: str, known: Identity, current: Identity) -> str | None:
    """How the topic differs from the known one, as the beginning of a message; None if it is the same."""
    if known == current:
        return None
    return (
        f"topic {topic} was re-created or resized: it was id {known[0]} with {known[1]} partitions and is id "
        f"{current[0]} with {current[1]}"
    )


def gone(topic: str, failure: KafkaError) -> Fatal:
    """The error of a generation's topic that is deleted."""
    return Fatal(
        f"topic {topic} is gone ({failure.str()}), and the results database counts on it: was that restored to before "
        f"the generation was retired? {RESTORING}"
    )
