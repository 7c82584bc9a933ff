"""Progress of a running job: its watermark, counts, checkpoints and rows. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from contracts.datasets import Dataset


@dataclass(frozen=True)
class ProgressReport:
    """One report. `counts` and `checkpoints` by step; `rows` are those written so far, by dataset."""

    watermark: datetime | None = None
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    checkpoints: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    rows: Mapping[Dataset, int] = field(default_factory=dict)
    assertions: Mapping[Dataset, Sequence[tuple[str, bool]]] = field(default_factory=dict)
    error: BaseException | str | None = None
