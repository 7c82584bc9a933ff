"""What the two interpreters of a pipeline have in common: `rows` for a few events, `columns` for many.

Both give the same partials, totals, dead letters and counts, to the byte; only the order of groups may differ. Columns
cost some milliseconds however few events there are, rows some microseconds for each event.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streaming.engine.decoding import Decoder
from streaming.engine.pipeline import Input, Parameters, Pipeline

# Encoded groups by the partition that owns them.
Owned = dict[int, list[bytes]]
# A record of the partials topic: its partition, how many groups it holds, and their bytes.
PartialGroups = tuple[int, int, bytes]


class NoGroups(Exception):
    """Bytes of a partials record are no groups of the pipeline."""


class StateStore(Protocol):
    """Totals by group key, per state partition; values as in the state topic."""

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def put_many(self, partition: int, items: Mapping[bytes, bytes]) -> None: ...


@dataclass
class Poll:
    """The events of a poll, apart from what they add to their groups. Rows are indexes of its values."""

    # Row, reason and kind, which is one of a few; the reason may quote the value.
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    # The greatest seq of each source, by partition, as far as it has been read.
    last_seqs: dict[int, dict[str, int]] = field(default_factory=dict)
    duplicates: Counter[int] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)
    # Row, window start and window end of each late event, if they are wanted.
    late_rows: list[tuple[int, int, int]] = field(default_factory=list)
    future: Counter[int] = field(default_factory=Counter)
    oldest_micros: int | None = None


@dataclass(frozen=True)
class EventDeps:
    """What interprets the events of an input is made of.

    `partitions` are those of the partials; `lists_late`: whether a poll lists its late events.
    """

    pipeline: Pipeline
    source_input: Input
    parameters: Parameters
    decoder: Decoder
    partitions: int
    lists_late: bool


class EventInterpreter(Protocol):
    """Events of a cycle → partials of their groups."""

    def add(
        self,
        values: Sequence[bytes | None],
        partitions: Sequence[int],
        last_seqs: Callable[[int], Mapping[str, int]],
    ) -> Poll:
        """Take the values of a poll, each of the partition beside it. `last_seqs`: those before it, by partition."""

    def partials(self) -> Owned:
        """The partials of all that was added, encoded; called once."""

    def clear(self) -> None:
        """Forget what was added."""


class GroupInterpreter(Protocol):
    """Partials of a cycle + totals of the store → totals."""

    def totals(
        self, partials: Sequence[PartialGroups], store: StateStore
    ) -> dict[int, list[tuple[bytes, bytes]]]:
        """Key and encoded total of each group that has a partial, by partition. Raises NoGroups."""


def owner_of(key: bytes, partitions: int) -> int:
    """The partition that owns a group: a hash of its key that is the same in every version of every library."""
    return zlib.crc32(key) % partitions
