"""Which generations are there, and how does one differ from the active one?"""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.deps import MOST, ResultsDep
from api.generation_schemas import Difference, Generations
from api.generations import NotThere, Which, compared, downloadable, downloaded, listed
from api.headed import is_head
from api.problems import NOT_KEPT, RETRY_AFTER_SECONDS, UNKEPT, problems
from api.queries import DOWNLOADS
from api.strict import PLAIN_DIGITS, Whole

router = APIRouter(prefix="/api/v1/generations", tags=["generations"])

# PostgreSQL's text cannot hold a NUL, its integer no more than this.
_NAME = r"^[^\x00]+$"
CSV = "text/csv; charset=utf-8"
PipelineName = Annotated[str, Path(min_length=1, max_length=200, pattern=_NAME)]
Number = Annotated[int, Field(ge=1, le=2**31 - 1), PLAIN_DIGITS, Path()]
_MISSING = problems({404: "There is no such generation, or it was not compared"})


class GenerationsSelection(BaseModel):
    """An unknown parameter is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str | None = Field(
        None, min_length=1, max_length=200, pattern=_NAME, description="Only this pipeline."
    )
    limit: Whole = Field(100, ge=1, le=MOST, description="How many, the newest first.")


class DifferenceSelection(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: Whole = Field(20, ge=0, le=MOST, description="How many of the greatest changes.")


@router.get("", response_model=Generations, responses=UNKEPT | _MISSING)
def all_of(selection: Annotated[GenerationsSelection, Query()], results: ResultsDep) -> Response:
    """Every generation of every pipeline, those that are gone included."""
    return _json(results, lambda connection: listed(connection, selection.pipeline, selection.limit))


@router.get("/{pipeline}/{generation}/difference", response_model=Difference, responses=UNKEPT | _MISSING)
def difference(
    pipeline: PipelineName,
    generation: Number,
    selection: Annotated[DifferenceSelection, Query()],
    results: ResultsDep,
) -> Response:
    """The newest difference of a generation from the active one: totals, greatest changes."""
    which = Which(pipeline, generation)
    return _json(results, lambda connection: compared(connection, which, selection.limit))


@router.get(
    "/{pipeline}/{generation}/difference.csv",
    response_class=StreamingResponse,
    responses=UNKEPT
    | _MISSING
    | {200: UNKEPT[200] | {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def download(request: Request, pipeline: PipelineName, generation: Number, results: ResultsDep) -> Response:
    """Every change, the greatest first. Text that a spreadsheet would run has a `'` before it."""
    which = Which(pipeline, generation)
    name = f"{pipeline}.g{generation}.difference.csv"
    headers = NOT_KEPT | {"Content-Disposition": f'attachment; filename="{name}"'}
    try:
        if is_head(request.scope):
            results.snapshot(lambda connection: downloadable(connection, which))
            return StreamingResponse(iter(()), media_type=CSV, headers=headers)
        pieces = results.download(lambda connection: downloaded(connection, which))
        # Errors are raised before the response begins.
        first = next(pieces)
    except NotThere as error:
        raise HTTPException(404, str(error)) from error
    except PoolTimeout as error:
        raise HTTPException(
            503,
            f"{DOWNLOADS} downloads are under way, which is all there may be; try again",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        ) from error
    return StreamingResponse(itertools.chain([first], pieces), media_type=CSV, headers=headers)


def _json(results: ResultsDep, ask: Any) -> Response:
    try:
        return Response(results.snapshot(ask), media_type="application/json", headers=NOT_KEPT)
    except NotThere as error:
        raise HTTPException(404, str(error)) from error
