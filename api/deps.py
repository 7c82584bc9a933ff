"""Dependencies of routes: the database, shared parameters, and conditional responses."""

from __future__ import annotations

from functools import partial
from typing import Annotated, cast

from fastapi import Depends, Header, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from api.conditional import Answers
from api.queries import Results
from api.strict import Whole
from contracts import texts
from contracts.texts import MOST_NAME_BYTES, MOST_SALE_ID_BYTES

# A list of this length still takes milliseconds.
MOST = 1000


async def _results(request: Request) -> Results:
    return cast(Results, request.app.state.results)


async def _answers(request: Request) -> Answers:
    return cast(Answers, request.app.state.answers)


ResultsDep = Annotated[Results, Depends(_results)]
AnswersDep = Annotated[Answers, Depends(_answers)]


async def _if_none_match(
    request: Request,
    if_none_match: Annotated[
        str | None, Header(description="Known ETags: 304 if the current one is among them.")
    ] = None,
) -> str | None:
    # A list may be spread over several headers.
    return None if if_none_match is None else ", ".join(request.headers.getlist("if-none-match"))


IfNoneMatch = Annotated[str | None, Depends(_if_none_match)]

# Normalised by the rule for texts, so blanks at the ends do not matter; what cannot be a name is refused. No pattern
# expresses that rule, so OpenAPI has a format of ours for it.
_VISIBLE = {"type": "string", "format": "visible-text", "minLength": 1}
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MOST_NAME_BYTES),
    AfterValidator(texts.name),
    WithJsonSchema(_VISIBLE | {"maxLength": MOST_NAME_BYTES}),
]
SaleName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MOST_SALE_ID_BYTES),
    AfterValidator(partial(texts.name, most=MOST_SALE_ID_BYTES)),
    WithJsonSchema(_VISIBLE | {"maxLength": MOST_SALE_ID_BYTES}),
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Selection(BaseModel):
    """Filters of both questions; an unknown parameter is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    country: Name | None = Field(None, description="Only this country.")
    currency: Currency | None = Field(None, description="Only this currency, three capital letters.")
    limit: Whole = Field(10, ge=1, le=MOST, description="How many of each ranked list.")
