"""Which cities sold most in a day?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from api.deps import AnswersDep, IfNoneMatch, Selection
from api.problems import CONDITIONAL
from api.queries import TOP_SALES, Question
from api.schemas import TopSales
from api.strict import Day

router = APIRouter(prefix="/api/v1/top-sales", tags=["top sales"])


class CitySelection(Selection):
    date: Day | None = Field(
        None, description="A civil day; by default the latest that has begun and has data."
    )


# Not `async`: a thread waits for the database, the event loop does not.
@router.get("/by-city", response_model=TopSales, responses=CONDITIONAL)
def by_city(
    selection: Annotated[CitySelection, Query()], answers: AnswersDep, if_none_match: IfNoneMatch
) -> Response:
    """Cities ranked by sales in one day, a list for each currency."""
    question = Question(selection.date, selection.country, selection.currency, selection.limit)
    return answers.respond(TOP_SALES, question, if_none_match, TopSales)
