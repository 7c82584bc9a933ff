"""Design, "Serving": versions never go back, one snapshot answers, and errors are problems."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from api.main import create_app
from api.queries import CITY, ENRICHED, SALESMAN
from contracts.settings import ApiSettings
from stack.embedded import Embedded
from tests.support.api import DAY, ApiResults, problem

CITIES = "/api/v1/top-sales/by-city"


def test_the_etag_is_promotion_and_apply_number_and_what_was_seen_is_not_sent_again(
    client: TestClient, filled: ApiResults
) -> None:
    filled.city("Berlin", "1")
    first = client.get(CITIES)
    tag = first.headers["etag"]
    assert tag.startswith('"1-1-')
    assert first.headers["cache-control"] == "no-cache"
    for seen in (tag, f"W/{tag}", f'"0-7", {tag}', "*"):
        again = client.get(CITIES, headers={"If-None-Match": seen})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(CITIES, headers={"If-None-Match": '"1-0"'}).content == first.content
    assert client.get(CITIES).content == first.content
    filled.city("Ulm", "1")
    assert client.get(CITIES, headers={"If-None-Match": tag}).headers["etag"].startswith('"1-2-')


def test_versions_never_go_back_over_promotion_and_rollback(client: TestClient, filled: ApiResults) -> None:
    for n in range(5):
        filled.city(f"c{n}", "1")
    filled.generation(CITY, 2)
    filled.city("of two", "2", generation=2)
    versions = []
    for number in (1, 2, 1):
        filled.promote(CITY, number)
        answer = client.get(CITIES)
        assert answer.json()["generation"] == number
        assert ("of two" in answer.text) == (number == 2)
        versions.append(tuple(map(int, answer.headers["etag"].strip('"').split("-")[:2])))
    assert versions == sorted(versions)
    assert len(set(versions)) == 3


def test_every_answer_is_of_one_snapshot(client: TestClient, filled: ApiResults) -> None:
    """Two generations that differ in everything; the pointer moves all the time; no answer is of both."""
    filled.generation(CITY, 2)
    for number in (1, 2):
        for n in range(5):
            filled.city(f"g{number}c{n}", str(number), generation=number, late_count=number, restated_at=DAY)
    stop = threading.Event()

    def moving() -> None:
        number = 1
        while not stop.is_set():
            number = 3 - number
            filled.promote(CITY, number)

    mover = threading.Thread(target=moving)
    mover.start()
    try:
        seen, newest = set(), (0, 0)
        for _ in range(300):
            answer = client.get(CITIES)
            body = answer.json()
            number = body["generation"]
            assert {row["city"][:2] for row in body["data"]} == {f"g{number}"}
            assert {row["total"] for row in body["data"]} == {f"{number}.0000"}
            assert body["late"][0]["count"] == 5 * number
            promotion, apply = map(int, answer.headers["etag"].strip('"').split("-")[:2])
            assert (promotion, apply) >= newest
            newest = (promotion, apply)
            seen.add(number)
        assert seen == {1, 2}
    finally:
        stop.set()
        mover.join()


@pytest.mark.parametrize(
    ("query", "parameter", "reason"),
    [
        ("date=22.11.2026", "date", "like 2026-11-22"),
        ("date=2026-02-30", "date", "day"),
        ("date=1795305600", "date", "like 2026-11-22"),
        ("date=1500-01-01", "date", "1900"),
        ("limit=0", "limit", "greater"),
        ("limit=1001", "limit", "less"),
        ("limit=many", "limit", "whole number"),
        ("currency=euro", "currency", "pattern"),
        ("country=", "country", "at least 1"),
        ("country=D%00E", "country", "holds U+0000 NULL at position 2"),
        ("country=DE%E2%80%8B", "country", "holds U+200B ZERO WIDTH SPACE at position 3"),
        ("country=%C2%A0", "country", "is empty"),
        (f"country={'%C3%BC' * 129}", "country", "is longer than 256 bytes"),
        ("contry=DE", "contry", "not permitted"),
    ],
)
def test_a_bad_parameter_is_a_problem_that_names_it(
    client: TestClient, filled: ApiResults, query: str, parameter: str, reason: str
) -> None:
    body = problem(client.get(f"{CITIES}?{query}"), 422)
    assert [error["parameter"] for error in body["errors"]] == [parameter]
    assert reason in body["errors"][0]["reason"]
    assert parameter in body["detail"]


def test_row_15_a_parameter_is_read_by_the_rule_that_names_are_written_by(
    client: TestClient, filled: ApiResults
) -> None:
    filled.city("Berlin", "1", country="Österreich")
    for written in ("%C3%96sterreich", "%20%C3%96sterreich%C2%A0", "O%CC%88sterreich"):
        (row,) = client.get(f"{CITIES}?country={written}").json()["data"]
        assert row["city"] == "Berlin"


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    assert problem(client.get("/api/v1/nothing"), 404)["instance"] == "/api/v1/nothing"
    assert client.post(CITIES).headers["allow"] == "GET, HEAD"
    problem(client.post(CITIES), 405)


def test_an_unexpected_error_is_a_problem_without_insides(
    client: TestClient, filled: ApiResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret insides")

    monkeypatch.setattr("api.queries._answer", broken)
    answer = client.get(CITIES)
    problem(answer, 500)
    assert "secret" not in answer.text


def test_before_the_first_generation_it_is_alive_and_not_ready(client: TestClient, empty: ApiResults) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert CITY in problem(client.get("/readyz"), 503)["detail"]
    assert problem(client.get(CITIES), 503)
    for pipeline in (CITY, SALESMAN, ENRICHED):
        empty.generation(pipeline)
        empty.promote(pipeline)
    assert client.get("/readyz").json() == {"status": "ready"}


def test_ready_only_while_the_database_is_there_and_right_after_it_is_back(
    stack: Embedded, client: TestClient, filled: ApiResults
) -> None:
    filled.city("Berlin", "1")
    assert client.get("/readyz").status_code == 200
    name = filled.engine.url.database
    superuser = create_engine(stack.postgres(), isolation_level="AUTOCOMMIT")
    with superuser.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        away = client.get(CITIES)
        assert problem(away, 503)
        assert away.headers["retry-after"] == "2"
        problem(client.get("/readyz"), 503)
        assert client.get("/healthz").status_code == 200
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    superuser.dispose()
    assert client.get(CITIES).status_code == 200


def test_a_restart_of_the_database_between_two_questions_is_not_seen(
    stack: Embedded, client: TestClient, filled: ApiResults
) -> None:
    filled.city("Berlin", "1")
    assert client.get(CITIES).status_code == 200
    superuser = create_engine(stack.postgres(), isolation_level="AUTOCOMMIT")
    with superuser.connect() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": filled.engine.url.database},
        )
    superuser.dispose()
    assert client.get(CITIES).status_code == 200


def test_a_database_that_is_not_set_up_is_not_ready(stack: Embedded) -> None:
    settings = ApiSettings.model_validate(
        {"results_db_url": stack.postgres().render_as_string(hide_password=False)}
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        assert "contracts setup" in problem(client.get("/readyz"), 503)["detail"]
        assert client.get("/healthz").status_code == 200


def test_metrics_count_requests_by_route(client: TestClient, filled: ApiResults) -> None:
    client.get(CITIES)
    client.get("/made/up")
    text_ = client.get("/metrics").text
    assert f'electrored_api_request_seconds_count{{route="{CITIES}",status="200"}}' in text_
    assert "made/up" not in text_


def test_swagger_ui_needs_no_internet(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "//cdn" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert client.get(f"/static-offline-docs/{asset}").status_code == 200
    described = client.get("/openapi.json").json()["paths"]
    assert {"/api/v1/top-sales/by-city", "/api/v1/top-salesmen/by-country"} <= described.keys()
    assert "application/problem+json" in described[CITIES]["get"]["responses"]["422"]["content"]


def test_views_show_what_the_api_shows(client: TestClient, filled: ApiResults) -> None:
    filled.city("Berlin", "1.5")
    filled.city("Ulm", "2.5")
    filled.city("Hidden", "0", sales_count=0)
    filled.salesman("s1", "1")
    filled.salesman("s2", "2")
    filled.watermarks(CITY, DAY + timedelta(days=2), DAY + timedelta(days=3))
    with filled.engine.connect() as connection:
        cities = connection.execute(
            text("SELECT rank, city, total, is_final FROM top_sales_by_city ORDER BY rank")
        )
        assert [(r.rank, r.city, str(r.total), r.is_final) for r in cities] == [
            (1, "Ulm", "2.5000", True),
            (2, "Berlin", "1.5000", True),
        ]
        men = connection.execute(
            text("SELECT rank, salesman_id, is_final FROM top_salesman_by_country ORDER BY 1")
        )
        assert [tuple(row) for row in men] == [(1, "s2", False), (2, "s1", False)]
