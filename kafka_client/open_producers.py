"""Producers with an open transaction on a partition: Kafka's DescribeProducers, which librdkafka does not implement.

Only over a connection without encryption or password, as to the embedded broker; elsewhere use Kafka's own tool.
"""

from __future__ import annotations

import socket
import struct
from contextlib import closing
from dataclasses import dataclass

from contracts.settings import KafkaSettings
from kafka_client.clients import TIMEOUT_SECONDS, admin

_DESCRIBE_PRODUCERS, _VERSION = 61, 0
# A healthy broker answers in milliseconds.
_SECONDS = 5.0
# Id, epoch, last sequence, last timestamp, coordinator's epoch, start of the transaction or -1; no tagged fields.
_PRODUCER = struct.Struct(">qiiqiqx")


@dataclass(frozen=True)
class OpenProducer:
    """A producer whose transaction on the partition began at that offset."""

    id: int
    epoch: int
    start_offset: int


def open_producers(settings: KafkaSettings, topic: str, partition: int) -> list[OpenProducer] | None:
    """Producers with an open transaction, by its start; None where the request cannot be made.

    Raises OSError or KafkaException when Kafka is down, and parse errors for a malformed answer.
    """
    if settings.kafka_security_protocol != "PLAINTEXT":
        return None
    cluster = admin(settings).list_topics(topic, timeout=TIMEOUT_SECONDS)
    leader = cluster.brokers.get(cluster.topics[topic].partitions[partition].leader)
    if leader is None:
        raise OSError(f"topic {topic} partition {partition} has no leader")
    with closing(socket.create_connection((leader.host, leader.port), _SECONDS)) as connection:
        connection.settimeout(_SECONDS)
        connection.sendall(_request(topic, partition))
        (size,) = struct.unpack(">i", _received(connection, 4))
        return _producers(_received(connection, size))


def _request(topic: str, partition: int) -> bytes:
    name = topic.encode()
    # Lengths of the flexible versions are one more than what they count; 0 ends each structure without tagged fields.
    body = b"".join(
        (
            struct.pack(">hhihB", _DESCRIBE_PRODUCERS, _VERSION, 1, -1, 0),
            bytes((2, *_uvarint(len(name) + 1))),
            name,
            struct.pack(">BiBB", 2, partition, 0, 0),
        )
    )
    return struct.pack(">i", len(body)) + body


def _uvarint(value: int) -> bytes:
    """The length of a topic's name, which has 249 characters at the most."""
    return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80, value >> 7))


def _producers(answer: bytes) -> list[OpenProducer]:
    # Correlation id, no tags, throttle time, one topic: its name, one partition: its number, error and message.
    at = 4 + 1 + 4 + 1
    name, at = _length(answer, at)
    at += name + 1 + 4
    (error,) = struct.unpack_from(">h", answer, at)
    message, at = _length(answer, at + 2)
    count, at = _length(answer, at + message)
    if error:
        raise OSError(f"Kafka does not describe the producers: error code {error}")
    producers = [_PRODUCER.unpack_from(answer, at + number * _PRODUCER.size) for number in range(count)]
    opened = [OpenProducer(one[0], one[1], one[5]) for one in producers if one[5] >= 0]
    return sorted(opened, key=lambda one: one.start_offset)


def _length(answer: bytes, at: int) -> tuple[int, int]:
    """A compact length and the position behind it; 0 for null."""
    value = shift = 0
    while True:
        byte = answer[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return max(0, value - 1), at


def _received(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise OSError("Kafka closed the connection")
        received += part
    return received
