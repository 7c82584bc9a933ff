"""The detail of a FileRecord in the position store: the place behind the last row done, and the counts of its rows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

from sources.csv.records import Place
from sources.csv.results import Counts
from sources.position_store import FileRecord

# First seq, the one behind the last, and how many sales were accepted between.
Span = tuple[int, int, int]


def place_of(entry: FileRecord) -> Place:
    """Where the rows that are still to be taken begin."""
    return Place(entry.detail["offset"], entry.detail["line"])


def counts_of(entry: FileRecord) -> Counts:
    """What became of a file's rows so far."""
    return Counts(**entry.detail["counts"]) if "counts" in entry.detail else Counts()


def detail(place: Place, counts: Counts) -> dict[str, Any]:
    """The part of the detail that moves with the rows."""
    return {"offset": place.offset, "line": place.line, "counts": asdict(counts)}


def earlier_of(entry: FileRecord) -> list[Span]:
    """Spans of earlier, interrupted ingestions of the same content, whose copy was lost."""
    return [(first, behind, accepted) for first, behind, accepted in entry.detail.get("earlier", ())]


def disagreements_of(entry: FileRecord) -> dict[str, int]:
    """Files of the same modification time that differ in some sales, and in how many."""
    return dict(entry.detail.get("disagrees", {}))


class Writers:
    """The file that an event came from, among those modified at about the same time as `entry`."""

    # Copying and unpacking keep times in whole seconds, or two of them; copying several files takes less.
    SAME_TIME_NS = 2_000_000_000

    def __init__(self, files: Mapping[str, FileRecord], entry: FileRecord) -> None:
        self._files, self._entry = files, entry

    @cached_property
    def _spans(self) -> list[tuple[int, int, str]]:
        # Unknown for a file that an older version entered.
        modified = self._entry.detail.get("modified", -math.inf)
        return sorted(
            (first, behind, other.name)
            for other in self._files.values()
            if other.sha256 != self._entry.sha256
            and abs(other.detail.get("modified", math.inf) - modified) <= self.SAME_TIME_NS
            for first, behind, _ in spans_of(other)
        )

    def of(self, seqs: Iterable[int]) -> Counter[str]:
        """The number of these events by file."""
        counts: Counter[str] = Counter()
        for seq in seqs:
            at = bisect_right(self._spans, (seq, math.inf, "")) - 1
            if at >= 0 and seq < self._spans[at][1]:
                counts[self._spans[at][2]] += 1
        return counts


def spans_of(entry: FileRecord) -> list[Span]:
    """All events of the content that were not retracted as a whole."""
    return [*earlier_of(entry), (entry.first_seq, entry.next_seq, counts_of(entry).accepted)]
