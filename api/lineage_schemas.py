"""Where a column comes from, as the API says it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class Transformation(BaseModel):
    type: str = Field(description="DIRECT: the value comes from it. INDIRECT: it decides over it.")
    subtype: str = Field(description="IDENTITY, TRANSFORMATION, AGGREGATION; JOIN, GROUP_BY, FILTER, SORT, …")
    description: str


class JobSaid(BaseModel):
    name: str
    state: str = Field(
        description="RUNNING while any of its runs goes on, else what was told last: START, RUNNING, COMPLETE, FAIL or "
        "ABORT. A run of which nothing was told for an hour counts no more."
    )
    told_at: datetime = Field(description="When something was told of it last.")
    watermark: datetime | None = Field(
        description="Of the runs that go on and say one, the least; else what was told last."
    )


class LineageStep(BaseModel):
    """A dataset or a column, what a job makes of it (or it of what), and how it goes on."""

    namespace: str
    name: str
    column: str | None
    job: str | None = Field(description="The job between this and the step before.")
    transformations: list[Transformation]
    next: list[LineageStep]


class Lineage(BaseModel):
    direction: str
    step: LineageStep
    jobs: list[JobSaid] = Field(description="Those on the way.")
