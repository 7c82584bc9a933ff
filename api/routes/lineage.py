"""Where does a number come from, and what becomes of a column?"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.deps import ResultsDep
from api.lineage import Ambiguous, NotKnown, traced
from api.lineage_schemas import Lineage
from api.problems import NOT_KEPT, UNKEPT, problems

router = APIRouter(prefix="/api/v1/lineage", tags=["lineage"])

_NAME = r"^[^\x00]+$"
_MISSING = problems({404: "No job reads or writes it", 409: "Several datasets have the name"})


class LineageSelection(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(
        min_length=1,
        max_length=500,
        pattern=_NAME,
        description="A table, view, topic or folder, by its name or the end of it: `top_sales_by_city`, "
        "`public.sales`, `sales-events`, `inbox`; with its column behind a dot, if `column` does not name it.",
    )
    column: str | None = Field(None, min_length=1, max_length=200, pattern=_NAME)
    direction: Literal["upstream", "downstream"] = "upstream"


@router.get("", response_model=Lineage, responses=UNKEPT | _MISSING)
def lineage(selection: Annotated[LineageSelection, Query()], results: ResultsDep) -> Response:
    """What a dataset or a column comes from, or what comes from it, job by job, up to its end."""
    try:
        answer = results.snapshot(
            lambda connection: traced(connection, selection.dataset, selection.column, selection.direction)
        )
    except NotKnown as error:
        raise HTTPException(404, str(error)) from error
    except Ambiguous as error:
        raise HTTPException(409, str(error)) from error
    return Response(answer, media_type="application/json", headers=NOT_KEPT)
