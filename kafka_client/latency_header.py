"""Time of the oldest event of a transaction: a header on its last record to each partition.

A sink that has committed that record derives the event's latency from its source's commit. One header per transaction
and partition, however many events are in it. Results do not depend on it: other readers may ignore it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

# Its value: recorded_at, in microseconds of the Unix epoch, as digits. Never converted to a datetime: an event may have
# a year outside of datetime's range, and is counted nevertheless.
NAME = "oldest-recorded-at"


class Carrier(Protocol):
    """A consumed record; confluent-kafka's Message is one."""

    def headers(self) -> list[tuple[str, bytes]] | None: ...


def headers(micros: int) -> list[tuple[str, bytes]]:
    return [(NAME, str(micros).encode())]


def oldest(messages: Iterable[Carrier]) -> int | None:
    """The oldest time in the headers of the records; None without any."""
    times = (int(value) for message in messages for name, value in message.headers() or () if name == NAME)
    return min(times, default=None)


def older(one: int | None, other: int | None) -> int | None:
    return min((micros for micros in (one, other) if micros is not None), default=None)
