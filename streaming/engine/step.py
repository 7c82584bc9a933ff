"""What the two steps of a pipeline have in common: the contract with the loop that drives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from streaming.engine.progress import Progress


class Message(Protocol):
    """One record as it was consumed; confluent-kafka's Message is one."""

    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def headers(self) -> list[tuple[str, bytes]] | None: ...


@dataclass(frozen=True)
class OutRecord:
    """One record to produce; without a partition the partitioner decides by key, without a value it deletes."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True)
class Output:
    """All that one transaction has to hold: records, and the progress of every input partition they cover."""

    records: list[OutRecord] = field(default_factory=list)
    progress: dict[int, Progress] = field(default_factory=dict)
    # When the oldest event in it was recorded; None if no event has a meaningful age.
    oldest_micros: int | None = None
    # Dead letters by kind.
    refused: Mapping[str, int] = field(default_factory=dict)
    # How many of the records go to which topic.
    written: Mapping[str, int] = field(default_factory=dict)


class Step(Protocol):
    """combine or merge: no broker and no clock inside. The loop adds polls, takes an output, commits, accepts.

    What was added since the last `accept` is an overlay: `reset` drops it, and the loop seeks back to `progress`.
    """

    name: str
    input_topic: str

    def begin(self, partition: int, progress: Progress) -> None:
        """The partition was assigned and its progress read back."""

    def forget(self, partition: int) -> None:
        """The partition was given up, after a commit or a reset."""

    def add(self, messages: Sequence[Message]) -> int:
        """Take a poll's worth of records, in order within each partition. Returns how many events they held."""

    def watermark(self, partition: int, at: datetime) -> None:
        """Everything recorded up to `at` was consumed from the partition."""

    def pending(self) -> bool:
        """Whether there is anything to commit."""

    def take(self) -> Output:
        """What one transaction must hold; called once between two of `accept` or `reset`."""

    def accept(self) -> None:
        """The transaction committed: the overlay becomes state."""

    def reset(self) -> None:
        """The transaction was aborted: the overlay is dropped."""

    def progress(self, partition: int) -> Progress:
        """The accepted progress: where to resume."""


class Assigned:
    """Accepted progress and its overlay, per assigned partition; shared by both steps."""

    def __init__(self) -> None:
        self._accepted: dict[int, Progress] = {}
        self._overlay: dict[int, Progress] = {}

    def begin(self, partition: int, progress: Progress) -> None:
        self._accepted[partition] = progress
        self._overlay.pop(partition, None)

    def forget(self, partition: int) -> None:
        self._accepted.pop(partition, None)
        self._overlay.pop(partition, None)

    def accepted(self, partition: int) -> Progress:
        return self._accepted[partition]

    def current(self, partition: int) -> Progress:
        """With what was added since the last commit."""
        return self._overlay.get(partition) or self._accepted[partition]

    def advance(self, partition: int, progress: Progress) -> None:
        self._overlay[partition] = progress

    @property
    def changed(self) -> dict[int, Progress]:
        return dict(self._overlay)

    def accept(self) -> None:
        self._accepted |= self._overlay
        self._overlay.clear()

    def reset(self) -> None:
        self._overlay.clear()
