"""The request of a replay, checked before anything is created."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from contracts.calendar import CalendarKind, checked_grace, grace_of
from contracts.zones import ZoneRules, known_zone
from streaming.engine.pipeline import Parameters, Pipeline
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay.errors import RequestRefused

_CALENDARS: tuple[CalendarKind, ...] = ("1-day", "30-days", "calendar-month")


@dataclass(frozen=True)
class Range:
    """Windows that begin in `[start, end)`; nothing outside of them may differ.

    Times without a zone are in the active generation's zone.
    """

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Request:
    """A replay of a pipeline: everything, or a range; what is None is taken from the active generation."""

    pipeline: str
    reason: str
    created_by: str
    version: int | None = None
    grace: timedelta | None = None
    calendar: str | None = None
    time_zone: str | None = None
    range: Range | None = None
    # The id of Dagster's backfill; the runs of one extend one candidate.
    backfill: str | None = None

    def check(self) -> Pipeline:
        """The requested pipeline. Raises RequestRefused for an invalid request."""
        if self.pipeline not in CURRENT:
            raise RequestRefused(f"there is no pipeline {self.pipeline}: {', '.join(sorted(CURRENT))}")
        version = self.version or CURRENT[self.pipeline]
        if (self.pipeline, version) not in PIPELINES:
            known = ", ".join(str(number) for name, number in sorted(PIPELINES) if name == self.pipeline)
            raise RequestRefused(f"{self.pipeline} has no version {version}, only {known}")
        if not self.reason.strip():
            raise RequestRefused("a replay needs a reason: it is kept with the generation")
        pipeline = PIPELINES[self.pipeline, version]
        self._check_parameters(pipeline)
        self._check_range(pipeline)
        return pipeline

    def parameters(self, active: Parameters) -> Parameters:
        """Those of the active generation, except for what is requested. A named zone has its current rules."""
        return Parameters(
            time_zone=self.time_zone or active.time_zone,
            grace=active.grace if self.grace is None else self.grace,
            calendar=active.calendar if self.calendar is None else _calendar(self.calendar),
            rules=active.rules if self.time_zone is None else ZoneRules.of_machine(self.time_zone),
        )

    def within(self, active: Parameters) -> Request:
        """The same with an aware range. Raises RequestRefused."""
        if self.range is None:
            return self
        zone = active.windows.zone
        try:
            moments = Range(zone.moment(self.range.start), zone.moment(self.range.end))
        except OverflowError as error:
            raise RequestRefused("a range lies in the years 1900 to 2199, as all windows do") from error
        if moments.start >= moments.end:
            raise RequestRefused("a range ends after it starts")
        return replace(self, range=moments)

    def _check_parameters(self, pipeline: Pipeline) -> None:
        try:
            if self.grace is not None:
                checked_grace(self.grace)
            if self.time_zone is not None:
                known_zone(self.time_zone)
        except ValueError as error:
            raise RequestRefused(str(error)) from error
        if self.calendar is not None:
            _calendar(self.calendar)
        if pipeline.calendar is None and self._changes:
            raise RequestRefused(
                f"{self.pipeline} has no windows: no grace, calendar or time zone applies to it"
            )

    def _check_range(self, pipeline: Pipeline) -> None:
        if self.range is None:
            return
        if pipeline.calendar is None:
            raise RequestRefused(f"{self.pipeline} has no windows: it is replayed as a whole")
        if self._changes:
            raise RequestRefused(
                "parameters change every window: a replay with other ones has no range, "
                f"but {' and '.join(self._changes)} came with one"
            )

    @property
    def _changes(self) -> dict[str, Any]:
        requested = {"grace": self.grace, "calendar": self.calendar, "time zone": self.time_zone}
        return {name: value for name, value in requested.items() if value is not None}


def grace(seconds: float | None) -> timedelta | None:
    """The grace from its seconds. Raises RequestRefused."""
    try:
        return None if seconds is None else grace_of(seconds)
    except ValueError as error:
        raise RequestRefused(str(error)) from error


def _calendar(name: str) -> CalendarKind:
    for kind in _CALENDARS:
        if kind == name:
            return kind
    raise RequestRefused(f"there is no calendar {name}: {', '.join(_CALENDARS)}")
