"""Which computations are there, and what does one say differently from what everybody sees?"""

from __future__ import annotations

import itertools
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.deps import MOST, ResultsDep
from api.generation_schemas import Difference, Generations
from api.generations import NotThere, Which, compared, downloaded, listed
from api.problems import RESPONSES, RETRY_AFTER_SECONDS
from api.queries import DOWNLOADS

router = APIRouter(prefix="/api/v1/generations", tags=["generations"])

# PostgreSQL's text cannot hold a NUL, its integer no more than this.
_NAME = r"^[^\x00]+$"
PipelineName = Annotated[str, Path(min_length=1, max_length=200, pattern=_NAME)]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
_MISSING: dict[int | str, dict[str, Any]] = {
    404: RESPONSES[422] | {"description": "There is no such generation, or it was not compared"}
}
# It may be kept, but has to be asked for again each time.
_HEADERS = {"Cache-Control": "no-cache"}


class GenerationsSelection(BaseModel):
    """An unknown parameter is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid")

    pipeline: str | None = Field(
        None, min_length=1, max_length=200, pattern=_NAME, description="Only this pipeline."
    )
    limit: int = Field(100, ge=1, le=MOST, description="How many, the one made last first.")


class DifferenceSelection(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=0, le=MOST, description="How many of the greatest changes.")


@router.get("", response_model=Generations, responses=RESPONSES | _MISSING)
def all_of(selection: Annotated[GenerationsSelection, Query()], results: ResultsDep) -> Response:
    """Every generation of every pipeline, those that are gone included."""
    return _json(results, lambda connection: listed(connection, selection.pipeline, selection.limit))


@router.get("/{pipeline}/{generation}/difference", response_model=Difference, responses=RESPONSES | _MISSING)
def difference(
    pipeline: PipelineName,
    generation: Number,
    selection: Annotated[DifferenceSelection, Query()],
    results: ResultsDep,
) -> Response:
    """What a generation said differently from the active one when it was last compared: totals, greatest changes."""
    which = Which(pipeline, generation)
    return _json(results, lambda connection: compared(connection, which, selection.limit))


@router.get(
    "/{pipeline}/{generation}/difference.csv",
    response_class=StreamingResponse,
    responses=RESPONSES | _MISSING | {200: {"content": {"text/csv": {}}}},
)
def download(pipeline: PipelineName, generation: Number, results: ResultsDep) -> StreamingResponse:
    """Every change, the greatest first. Text that a spreadsheet would run has a `'` before it."""
    which = Which(pipeline, generation)
    pieces = results.download(lambda connection: downloaded(connection, which))
    try:
        # What can be refused is refused before the answer begins.
        first = next(pieces)
    except NotThere as error:
        raise HTTPException(404, str(error)) from error
    except PoolTimeout as error:
        raise HTTPException(
            503,
            f"{DOWNLOADS} downloads are under way, which is all there may be; try again",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        ) from error
    name = f"{pipeline}.g{generation}.difference.csv"
    return StreamingResponse(
        itertools.chain([first], pieces),
        media_type="text/csv; charset=utf-8",
        headers=_HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _json(results: ResultsDep, ask: Any) -> Response:
    try:
        return Response(results.snapshot(ask), media_type="application/json", headers=_HEADERS)
    except NotThere as error:
        raise HTTPException(404, str(error)) from error
