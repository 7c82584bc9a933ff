"""What routes are given: the database, the parameters they share, and conditional answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, cast

from fastapi import Depends, Header, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from api.queries import Results, Version
from contracts.calendar import FIRST_DAY, LAST_DAY

# Nobody's shelf is longer, and a list of this length is still answered in milliseconds.
MOST = 1000


async def _results(request: Request) -> Results:
    return cast(Results, request.app.state.results)


ResultsDep = Annotated[Results, Depends(_results)]
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
# PostgreSQL's text cannot hold a NUL, so nothing is called that.
Country = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Selection(BaseModel):
    """Filters that both questions share; an unknown parameter is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    country: Country | None = Field(None, description="Only this country.")
    currency: Currency | None = Field(None, description="Only this currency, three capital letters.")
    limit: int = Field(10, ge=1, le=MOST, description="How many of each ranked list.")


def seen_by(if_none_match: str | None) -> Callable[[Version], bool]:
    """Whether the reader has this version already, after its `If-None-Match`."""
    tags = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    return lambda version: "*" in tags or version.etag in tags


def conditional(version: Version, body: BaseModel | None) -> Response:
    """The body with its ETag, or 304 without one. It may be stored, but has to be asked for again each time."""
    headers = {"ETag": version.etag, "Cache-Control": "no-cache"}
    if body is None:
        return Response(status_code=304, headers=headers)
    return Response(body.model_dump_json(), media_type="application/json", headers=headers)
