"""Which sales are paid?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.deps import AnswersDep, IfNoneMatch, SaleName
from api.payment_schemas import PaymentsSummary, Sale
from api.payments import NoSuchSale, OneSale, Summary
from api.problems import CONDITIONAL, problems
from api.strict import Day

router = APIRouter(prefix="/api/v1", tags=["payments"])

SaleId = Annotated[SaleName, Path()]


class DaySelection(BaseModel):
    """An unknown parameter is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    date: Day | None = Field(
        None, description="A civil day; by default the latest that has begun and has sales."
    )


@router.get("/payments/summary", response_model=PaymentsSummary, responses=CONDITIONAL)
def summary(
    selection: Annotated[DaySelection, Query()], answers: AnswersDep, if_none_match: IfNoneMatch
) -> Response:
    """How many of a day's sales are paid, and how much, by status, country, city and currency."""
    asked = Summary(selection.date)
    return answers.of_snapshot(asked, if_none_match, asked.answer)


# `path`: an id may hold a slash.
@router.get(
    "/sales/{sale_id:path}",
    response_model=Sale,
    responses=CONDITIONAL | problems({404: "No source has such a sale"}),
)
def sale(sale_id: SaleId, answers: AnswersDep, if_none_match: IfNoneMatch) -> Response:
    """One sale with its payments and its status."""
    asked = OneSale(sale_id)
    try:
        return answers.of_snapshot(asked, if_none_match, asked.answer)
    except NoSuchSale as error:
        raise HTTPException(404, f"no source has a sale {sale_id!r}") from error
