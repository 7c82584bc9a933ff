"""Classes of Kafka's error codes, by what the engine has to do."""

from __future__ import annotations

from confluent_kafka import KafkaError

# The position, the topic or the right to read it is gone; a retry gets the same answer.
_LOST = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
# The bytes of a batch make no sense to this client, however often they are fetched.
_UNREADABLE = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED})
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})


def is_lost(failure: KafkaError) -> bool:
    """Whether reading cannot continue at its position."""
    return failure.fatal() or failure.code() in _LOST


def is_unreadable(failure: KafkaError) -> bool:
    """Whether a batch cannot be decoded by this client."""
    return failure.code() in _UNREADABLE


def is_too_large(failure: KafkaError) -> bool:
    """Whether a record or a batch of them is larger than the client or the topic allows."""
    return failure.code() in _TOO_LARGE


def is_end(failure: KafkaError) -> bool:
    """Whether this is the event of a partition's end."""
    return bool(failure.code() == KafkaError._PARTITION_EOF)
