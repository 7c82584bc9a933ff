"""Response models of lineage."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class Transformation(BaseModel):
    type: str = Field(description="DIRECT: the value comes from it. INDIRECT: it influences the value.")
    subtype: str = Field(description="IDENTITY, TRANSFORMATION, AGGREGATION; JOIN, GROUP_BY, FILTER, SORT, …")
    description: str


class JobState(BaseModel):
    name: str
    state: str = Field(
        description="RUNNING while any of its runs goes on, else of the newest event: START, RUNNING, COMPLETE, FAIL "
        "or ABORT. A run without an event for an hour does not count."
    )
    told_at: datetime = Field(description="Time of its newest event.")
    watermark: datetime | None = Field(
        description="The least of the runs that go on; else of the newest event."
    )


class LineageStep(BaseModel):
    """A dataset or a column, the job and transformations that lead to it, and the steps that follow."""

    namespace: str
    name: str
    column: str | None
    job: str | None = Field(description="The job between this and the step before.")
    transformations: list[Transformation]
    next: list[LineageStep]


class Lineage(BaseModel):
    direction: str
    step: LineageStep
    jobs: list[JobState] = Field(description="Those of the steps.")
