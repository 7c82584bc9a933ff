"""What the ledger keeps of a file beside its state: the place behind the last row done, and what became of the rows."""

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
    """What moves with the rows; what else the entry keeps stays."""
    return {"offset": place.offset, "line": place.line, "counts": asdict(counts)}


def earlier_of(entry: FileRecord) -> list[Span]:
    """The same content's events of other times: each time its copy was lost, a part of it had been taken."""
    return [(first, behind, accepted) for first, behind, accepted in entry.detail.get("earlier", ())]


def disagreements_of(entry: FileRecord) -> dict[str, int]:
    """Files of the same time that said something else of some sales, and of how many."""
    return dict(entry.detail.get("disagrees", {}))


class Writers:
    """Which file made an event, among those that were modified at about the same time as another."""

    # What copies and unpacks files keeps whole seconds, or two of them; a copy of several takes less.
    SAME_TIME_NS = 2_000_000_000

    def __init__(self, files: Mapping[str, FileRecord], entry: FileRecord) -> None:
        self._files, self._entry = files, entry

    @cached_property
    def _spans(self) -> list[tuple[int, int, str]]:
        # Of a file that an older version entered it is not known.
        modified = self._entry.detail.get("modified", -math.inf)
        return sorted(
            (first, behind, other.name)
            for other in self._files.values()
            if other.sha256 != self._entry.sha256
            and abs(other.detail.get("modified", math.inf) - modified) <= self.SAME_TIME_NS
            for first, behind, _ in spans_of(other)
        )

    def of(self, seqs: Iterable[int]) -> Counter[str]:
        """How many of the events are of which of the files."""
        found: Counter[str] = Counter()
        for seq in seqs:
            at = bisect_right(self._spans, (seq, math.inf, "")) - 1
            if at >= 0 and seq < self._spans[at][1]:
                found[self._spans[at][2]] += 1
        return found


def spans_of(entry: FileRecord) -> list[Span]:
    """All events that the content has made and that were not taken back as a whole."""
    return [*earlier_of(entry), (entry.first_seq, entry.next_seq, counts_of(entry).accepted)]
