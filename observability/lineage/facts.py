"""What is said of a run: which one it is, how names are made for it, and how far it has come. Values, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from contracts.datasets import Dataset, Places

# The name of our own facet, which has a run's watermark, counts and checkpoints.
FACET = "electroRed_watermark"


@dataclass(frozen=True)
class Parent:
    """The run that started a run."""

    namespace: str
    name: str
    run_id: str


@dataclass(frozen=True)
class Facts:
    """What a run says of itself when it says something. `rows` are those written so far, by dataset."""

    watermark: datetime | None = None
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    checkpoints: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    rows: Mapping[Dataset, int] = field(default_factory=dict)
    assertions: Mapping[Dataset, Sequence[tuple[str, bool]]] = field(default_factory=dict)
    error: BaseException | str | None = None


@dataclass(frozen=True)
class Naming:
    """How names are made of ours: the namespace of jobs, the places of datasets, where the code is to be seen."""

    namespace: str
    places: Places
    source_url: str = ""


@dataclass(frozen=True)
class RunOf:
    """One run of a job."""

    id: str
    parent: Parent | None = None
    nominal: tuple[datetime, datetime | None] | None = None
