"""Rows 36 and 37: HEAD is GET without a body, a 405 names the allowed methods, nothing leads to a foreign host."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

CITIES = "/api/v1/top-sales/by-city"
PAGES = ["/", "/docs", "/openapi.json", "/healthz", "/metrics", "/static-offline-docs/swagger-ui.css"]
PROBLEMS = ["/readyz", CITIES, f"{CITIES}?limit=0", "/made/up", "/api/v1/generations/x/1/difference.csv"]


@pytest.mark.parametrize("path", [*PAGES, *PROBLEMS])
def test_row_37_head_is_get_without_a_body(bare: TestClient, path: str) -> None:
    asked = bare.get(path, follow_redirects=False)
    head = bare.head(path, follow_redirects=False)
    assert asked.status_code == head.status_code
    assert head.content == b""
    for name in ("content-type", "cache-control", "retry-after", "location", "etag"):
        assert asked.headers.get(name) == head.headers.get(name), name
    if path != "/metrics":
        assert asked.headers["content-length"] == head.headers["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/docs", CITIES, "/static-offline-docs/swagger-ui.css", "/healthz"])
def test_row_37_other_methods_say_what_is_allowed(bare: TestClient, method: str, path: str) -> None:
    answer = bare.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"{path}/"
            for path in (
                CITIES,
                "/docs",
                "/healthz",
                "/api/v1/lineage",
                "/api/v1/generations",
                "/openapi.json",
            )
        ),
        *("/static-offline-docs", "/static-offline-docs/", "//evil.example", "/%2Fevil.example/"),
    ],
)
def test_row_36_no_path_leads_to_the_host_that_a_request_names(bare: TestClient, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = bare.request(
            method, f"http://evil.example{path}", headers={"Host": "evil.example"}, follow_redirects=False
        )
        assert answer.status_code == 404, answer.headers
        assert "evil" not in str(answer.headers)


def test_row_36_the_only_redirect_is_relative(bare: TestClient) -> None:
    answer = bare.get("/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")
