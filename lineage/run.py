"""Identity of a run and how names are made for it. Values, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from contracts.datasets import Places

# The name of our own facet, which has a run's watermark, counts and checkpoints.
FACET = "electroRed_watermark"


@dataclass(frozen=True)
class Parent:
    """The run that started a run."""

    namespace: str
    name: str
    run_id: str


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
