"""Identity of a run, and the naming of jobs and datasets. Values only."""

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
    """How jobs and datasets are named: the namespace of jobs, the places of datasets, the base URL of the code."""

    namespace: str
    places: Places
    source_url: str = ""


@dataclass(frozen=True)
class RunOf:
    """One run of a job."""

    id: str
    parent: Parent | None = None
    nominal: tuple[datetime, datetime | None] | None = None
