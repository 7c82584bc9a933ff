"""RFC 9457: every error has one shape, and shows no internals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI, HTTPException, Query
from fastapi.testclient import TestClient
from psycopg2.errors import UndefinedColumn, UndefinedTable
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.problems import install
from api.versions import NoActiveGeneration

ERRORS = {
    "teapot": HTTPException(418, "short and stout", headers={"X-Handle": "here"}),
    "away": OperationalError("SELECT secret", {}, Exception("connection refused\nsecret detail")),
    "closed": InterfaceError("SELECT secret", {}, Exception("connection already closed")),
    "full": PoolTimeout("QueuePool limit reached"),
    "none": NoActiveGeneration("top-sales-by-city"),
    "bare": ProgrammingError("SELECT secret", {}, UndefinedTable("no such table")),
    "wrong": ProgrammingError("SELECT secret", {}, UndefinedColumn("no such column")),
    "bug": ZeroDivisionError("secret"),
}


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()
    install(app)

    @app.get("/fails/{how}")
    def fails(how: str) -> None:
        raise ERRORS[how]

    @app.get("/counts")
    def counts(n: int = Query(ge=1), m: int = Query(ge=1)) -> int:
        return n + m

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    ("how", "status", "sentence"),
    [
        ("teapot", 418, "short and stout"),
        ("away", 503, "does not answer"),
        ("closed", 503, "does not answer"),
        ("full", 503, "does not answer"),
        ("none", 503, "streaming init"),
        ("bare", 503, "contracts setup"),
        ("wrong", 500, "unexpected"),
        ("bug", 500, "unexpected"),
    ],
)
def test_every_error_has_one_shape(client: TestClient, how: str, status: int, sentence: str) -> None:
    answer = client.get(f"/fails/{how}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert ("retry-after" in answer.headers) == (status == 503)
    body = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "instance"}
    assert (body["status"], body["instance"]) == (status, f"/fails/{how}")
    assert sentence in body["detail"]
    assert "secret" not in answer.text


def test_headers_of_an_error_are_kept(client: TestClient) -> None:
    assert client.get("/fails/teapot").headers["x-handle"] == "here"


def test_all_bad_parameters_are_named(client: TestClient) -> None:
    body = client.get("/counts?n=zero").json()
    assert body["title"].startswith("Unprocessable")
    assert {error["parameter"]: error["reason"] for error in body["errors"]} == {
        "n": "Input should be a valid integer, unable to parse string as an integer",
        "m": "Field required",
    }
