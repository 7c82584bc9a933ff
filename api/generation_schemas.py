"""Response models of generations. Money is an exact decimal as text; moments are UTC."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PlainSerializer

State = Literal["building", "candidate", "active", "standby", "retired", "failed"]
# Plain digits: 0.000001 is not 1E-6.
Exact = Annotated[Decimal, PlainSerializer(lambda value: f"{value:f}", return_type=str)]


class Parameters(BaseModel):
    time_zone: str
    grace_seconds: float
    calendar: str


class Span(BaseModel):
    """Half-open `[start, end)`."""

    start: datetime
    end: datetime


class Compared(BaseModel):
    """Counts of the groups in which a generation differs from the one that was active then."""

    base: int = Field(description="The generation that it was compared with.")
    compared: int
    added: int
    removed: int
    changed: int
    outside: int = Field(description="Of these, in windows outside of the replay's range.")
    fingerprint: str = Field(description="Identifies the whole difference; a promotion has to name it.")
    computed_at: datetime


class Generation(BaseModel):
    """One computation of a pipeline; exactly one is active, which all readers see."""

    pipeline: str
    generation: int
    state: State
    version: int = Field(description="Of the pipeline's code.")
    parameters: Parameters
    range: Span | None = Field(
        description="Windows outside of which it may not differ; null: everything may."
    )
    reason: str
    created_by: str
    approved_by: str | None
    error: str | None = Field(description="Why it failed, or was rolled back.")
    created_at: datetime
    candidate_at: datetime | None
    promoted_at: datetime | None
    standby_at: datetime | None
    retired_at: datetime | None
    difference: Compared | None = Field(description="The newest one; null before the first.")


class Generations(BaseModel):
    data: list[Generation] = Field(description="The newest first.")


class Total(BaseModel):
    """Totals over all groups."""

    currency: str
    before: Exact = Field(examples=["1234.5000"])
    after: Exact
    change: Exact


class Change(BaseModel):
    """A group in which the two generations differ."""

    window: Span | None
    group: dict[str, str]
    kind: Literal["added", "removed", "changed"]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    change: Exact | None = Field(description="Null if the currency changed.")
    share: Exact | None = Field(description="The change as a share of its currency's total.")
    rank_before: int | None
    rank_after: int | None


class Difference(Compared):
    """The difference of a generation from the active one; exact, at one position of their input."""

    pipeline: str
    generation: int
    state: State = Field(description="Of the generation, now. The changes go when it is retired.")
    is_current: bool = Field(description="Nothing was promoted since: a promotion may name the fingerprint.")
    range: Span | None
    totals: list[Total]
    changes: list[Change] = Field(description="The greatest, by share of their currency.")


def span(start: datetime | None, end: datetime | None) -> dict[str, datetime] | None:
    return None if start is None or end is None else {"start": start, "end": end}
