"""How old the oldest event of a transaction is: a header on its last record to each partition.

A sink that has committed that record knows how long the event took from its source's commit. One header a transaction
and partition, however many events are in it. It says nothing about results: who does not know it loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

# Its value: recorded_at, in microseconds of the Unix epoch, as digits. Not a datetime anywhere: an event may say that
# it was recorded in a year that has none, and is counted nevertheless.
NAME = "oldest-recorded-at"


class Carrier(Protocol):
    """A consumed record; confluent-kafka's Message is one."""

    def headers(self) -> list[tuple[str, bytes]] | None: ...


def headers(micros: int) -> list[tuple[str, bytes]]:
    return [(NAME, str(micros).encode())]


def oldest(messages: Iterable[Carrier]) -> int | None:
    """The oldest that any of the records tells; None if none does."""
    told = [int(value) for message in messages for name, value in message.headers() or () if name == NAME]
    return min(told, default=None)


def older(one: int | None, other: int | None) -> int | None:
    return min((micros for micros in (one, other) if micros is not None), default=None)
