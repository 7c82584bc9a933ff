"""Errors as RFC 9457 problem details: what happened, and what the caller can do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg2.errors import UndefinedTable
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from api.versions import NoActiveGeneration
from observability import logs

MEDIA_TYPE = "application/problem+json"
# A database that restarts is usually back by then.
RETRY_AFTER_SECONDS = 2

_log = logs.get(__name__)


class BadParameter(BaseModel):
    parameter: str
    reason: str


class Problem(BaseModel):
    """RFC 9457 problem details; `errors` lists invalid parameters."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    errors: list[BadParameter] | None = Field(default=None)


_PROBLEMS = {
    422: "A parameter is invalid",
    500: "An unexpected error, which was logged",
    503: "The results database is down, or nothing was computed yet",
}
_REVALIDATED = {
    "description": "May be stored, but has to be revalidated",
    "schema": {"const": "no-cache"},
}
_RETRY_AFTER = {"description": "Seconds", "required": True, "schema": {"type": "integer"}}
NOT_KEPT = {"Cache-Control": "no-cache"}


def problems(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the error responses of a route, by status."""
    return {
        status: {
            "description": description,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        | ({"headers": {"Retry-After": _RETRY_AFTER}} if status == 503 else {})
        for status, description in descriptions.items()
    }


# Responses of a route without an ETag, and of one with an ETag.
UNKEPT: dict[int | str, dict[str, Any]] = problems(_PROBLEMS) | {
    200: {"headers": {"Cache-Control": _REVALIDATED}}
}
_TAGGED = {
    "Cache-Control": _REVALIDATED,
    "ETag": {
        "description": "Of this resource and version; versions never decrease",
        "required": True,
        "schema": {"type": "string"},
    },
}
CONDITIONAL: dict[int | str, dict[str, Any]] = problems(_PROBLEMS) | {
    200: {"headers": _TAGGED},
    304: {"description": "If-None-Match holds the current ETag", "headers": _TAGGED},
}


def describe(app: FastAPI) -> None:
    """Add the schemas of problems to OpenAPI, which no route returns as its result."""
    schemas = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")[
        1
    ]["$defs"]
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document["components"]["schemas"] |= schemas
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def response(
    request: Request,
    status: int,
    detail: str,
    *,
    errors: list[BadParameter] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        errors=errors,
    )
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status,
        {"Cache-Control": "no-store"} | (headers or {}),
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Register handlers that turn every error into a problem response."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            BadParameter(
                parameter=".".join(map(str, e["loc"][1:])), reason=e["msg"].removeprefix("Value error, ")
            )
            for e in error.errors()
        ]
        detail = "; ".join(f"{e.parameter}: {e.reason}" for e in errors)
        return response(request, 422, detail, errors=errors)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        # All routes are read only.
        allowed = {"Allow": "GET, HEAD"} if error.status_code == 405 else {}
        headers = {**(error.headers or {}), **allowed}
        return response(request, error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(NoActiveGeneration)
    async def uninitialised(request: Request, error: NoActiveGeneration) -> JSONResponse:
        return _unavailable(
            request, f"pipeline {error} has no active generation yet: run `python -m streaming init`"
        )

    @app.exception_handler(OperationalError)
    @app.exception_handler(InterfaceError)
    @app.exception_handler(PoolTimeout)
    async def away(request: Request, error: Exception) -> JSONResponse:
        reason = str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]
        _log.warning("the results database does not answer", reason=reason)
        return _unavailable(request, "the results database does not answer; try again")

    @app.exception_handler(ProgrammingError)
    async def unprepared(request: Request, error: ProgrammingError) -> JSONResponse:
        if isinstance(error.orig, UndefinedTable):
            return _unavailable(
                request, "the results database is not set up yet: run `python -m contracts setup`"
            )
        raise error

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again for the server's log; the response has no internals.
        return response(request, 500, "an unexpected error, which was logged")


def _unavailable(request: Request, detail: str) -> JSONResponse:
    return response(request, 503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
