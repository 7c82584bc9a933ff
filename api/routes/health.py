"""Is the process alive and ready? And its metrics."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from api.deps import ResultsDep
from api.problems import problems

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


@router.get("/healthz")
async def alive() -> Health:
    """The process runs. The database is not checked: a restart of this process would not repair it."""
    return Health(status="ok")


@router.get("/readyz", responses=problems({503: "The results database is down, or nothing was computed yet"}))
def ready(results: ResultsDep) -> Health:
    """The database answers and every pipeline has an active generation."""
    missing = results.missing()
    if missing:
        raise HTTPException(503, f"no active generation yet of {', '.join(missing)}")
    return Health(status="ready")


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
