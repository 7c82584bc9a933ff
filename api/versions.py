"""Versions of answers: the active generation and its applied state, at one time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Row

from contracts.calendar import Calendar


class NoActiveGeneration(Exception):
    """The pipeline was not initialised yet."""


class Asked(Protocol):
    """A request about one pipeline."""

    @property
    def pipeline(self) -> str: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Version:
    """Orders all answers of a pipeline; neither number ever decreases.

    `begun` is the start of the newest window that has begun: requests without a day change with it.
    """

    promotion_number: int
    apply_number: int
    begun: datetime

    def etag(self, resource: object) -> str:
        """The tag of this version of one resource; no other resource ever has it."""
        digest = hashlib.sha256(f"{resource!r} {self.begun.isoformat()}".encode()).hexdigest()
        return f'"{self.promotion_number}-{self.apply_number}-{digest[:16]}"'


class Fresh:
    """The active generation of a pipeline at one time: its calendar, and its applied state."""

    def __init__(self, row: Row[Any], calendar: Calendar, now: datetime) -> None:
        self.generation: int = row.generation
        self.watermark: datetime | None = row.watermark
        self.grace: timedelta = row.grace
        self.calendar = calendar
        self.now = now
        # The window of `now`, with data or without.
        self.current = calendar.window_at(now)
        self.version = Version(row.promotion_number, row.apply_number, self.current.start)
