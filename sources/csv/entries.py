"""What the ledger keeps of a file beside its state: the place behind the last row done, and what became of the rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sources.csv.lines import Place
from sources.csv.results import Counts
from sources.ledger import FileEntry

# First seq, the one behind the last, and how many sales were accepted between.
Span = tuple[int, int, int]


def place_of(entry: FileEntry) -> Place:
    """Where the rows that are still to be taken begin."""
    return Place(entry.detail["offset"], entry.detail["line"])


def counts_of(entry: FileEntry) -> Counts:
    """What became of a file's rows so far."""
    return Counts(**entry.detail["counts"]) if "counts" in entry.detail else Counts()


def detail(place: Place, counts: Counts, earlier: list[Span]) -> dict[str, Any]:
    found: dict[str, Any] = {"offset": place.offset, "line": place.line, "counts": asdict(counts)}
    return found | {"earlier": earlier} if earlier else found


def earlier_of(entry: FileEntry) -> list[Span]:
    """The same content's events of other times: each time its copy was lost, a part of it had been taken."""
    return [(first, behind, accepted) for first, behind, accepted in entry.detail.get("earlier", ())]


def spans_of(entry: FileEntry) -> list[Span]:
    """All events that the content has made and that were not taken back as a whole."""
    return [*earlier_of(entry), (entry.first_seq, entry.next_seq, counts_of(entry).accepted)]
