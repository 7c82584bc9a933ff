"""What routes are given: the database, the parameters they share, and conditional answers."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Annotated, Any, cast

from fastapi import Depends, Header, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from api.answers import Answers
from api.queries import Results
from contracts import texts
from contracts.calendar import FIRST_DAY, LAST_DAY
from contracts.texts import MOST_NAME_BYTES, MOST_SALE_ID_BYTES

# Nobody's shelf is longer, and a list of this length is still answered in milliseconds.
MOST = 1000


async def _results(request: Request) -> Results:
    return cast(Results, request.app.state.results)


async def _answers(request: Request) -> Answers:
    return cast(Answers, request.app.state.answers)


ResultsDep = Annotated[Results, Depends(_results)]
AnswersDep = Annotated[Answers, Depends(_answers)]
IfNoneMatch = Annotated[str | None, Header(description="An ETag seen before: 304 if nothing changed since.")]


def _iso_day(value: Any) -> Any:
    # A number or a moment would pass for a date too, and be read as something nobody meant.
    if isinstance(value, str) and not (len(value) == 10 and value[4] == value[7] == "-"):
        raise ValueError("must be a date like 2026-11-22")
    return value


def _in_calendar(day: date) -> date:
    if not FIRST_DAY <= day < LAST_DAY:
        raise ValueError(f"must not be before {FIRST_DAY}, and be before {LAST_DAY}")
    return day


Day = Annotated[date, BeforeValidator(_iso_day), AfterValidator(_in_calendar)]
# By the one rule for texts: what differs from a name in blanks at its ends asks for it, what cannot be one is refused.
Name = Annotated[str, StringConstraints(min_length=1, max_length=MOST_NAME_BYTES), AfterValidator(texts.name)]
SaleName = Annotated[str, AfterValidator(partial(texts.name, most=MOST_SALE_ID_BYTES))]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Selection(BaseModel):
    """Filters that both questions share; an unknown parameter is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    country: Name | None = Field(None, description="Only this country.")
    currency: Currency | None = Field(None, description="Only this currency, three capital letters.")
    limit: int = Field(10, ge=1, le=MOST, description="How many of each ranked list.")
