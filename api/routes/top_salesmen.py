"""Who sold most in each country?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from api.deps import AnswersDep, IfNoneMatch, Selection
from api.problems import CONDITIONAL
from api.queries import TOP_SALESMEN, Question
from api.schemas import TopSalesmen
from api.strict import Day

router = APIRouter(prefix="/api/v1/top-salesmen", tags=["top salesmen"])


class SalesmanSelection(Selection):
    at: Day | None = Field(
        None, description="A civil day in the window; by default the latest that has begun and has data."
    )


# Not `async`: a thread waits for the database, the event loop does not.
@router.get("/by-country", response_model=TopSalesmen, responses=CONDITIONAL)
def by_country(
    selection: Annotated[SalesmanSelection, Query()], answers: AnswersDep, if_none_match: IfNoneMatch
) -> Response:
    """Salesmen ranked by sales in one window, a list for each country and currency."""
    question = Question(selection.at, selection.country, selection.currency, selection.limit)
    return answers.respond(TOP_SALESMEN, question, if_none_match, TopSalesmen)
