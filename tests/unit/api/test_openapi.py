"""Row 34: the OpenAPI document is readable: every reference resolves, and a client can be generated from it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

TAGGED = {
    "/api/v1/top-sales/by-city",
    "/api/v1/top-salesmen/by-country",
    "/api/v1/payments/summary",
    "/api/v1/sales/{sale_id}",
}


@pytest.fixture(scope="module")
def document(bare: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = bare.get("/openapi.json").json()
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_row_34_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        node = document
        for name in reference.removeprefix("#/").split("/"):
            node = node[name]


def test_row_34_every_answer_is_described(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        answers = operations["get"]["responses"]
        if path == "/healthz":
            continue
        wanted = {"200", "503"} if path == "/readyz" else {"200", "422", "500", "503"}
        assert wanted <= answers.keys(), path
        assert ("304" in answers) == (path in TAGGED), path
        for status, answer in answers.items():
            if int(status) >= 400:
                (schema,) = answer["content"].values()
                assert schema == {"schema": {"$ref": "#/components/schemas/Problem"}}
                assert list(answer["content"]) == ["application/problem+json"]
        if path in TAGGED:
            assert all("ETag" in answers[status]["headers"] for status in ("200", "304"))
            assert "content" not in answers["304"]
        assert ("404" in answers) == any(part in path for part in ("{", "generations", "lineage")), path


def test_row_34_a_client_can_be_made_of_it(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: TestClient
) -> None:
    source, made = tmp_path / "openapi.json", tmp_path / "made_of_openapi"
    source.write_text(json.dumps(document))
    config = Config.from_sources(
        ConfigFile(post_hooks=[]), MetaType.NONE, source, "utf-8", overwrite=False, output_path=made
    )
    assert list(generate(config=config)) == [], "nothing of it is left out"
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        by_city = importlib.import_module(
            "made_of_openapi.api.top_sales.by_city_api_v1_top_sales_by_city_get"
        )
        client = importlib.import_module("made_of_openapi.client").Client(base_url=str(bare.base_url))
        client.set_httpx_client(bare)
        answer = by_city.sync_detailed(client=client, limit=3)
        assert (answer.status_code, answer.parsed.status) == (503, 503), "a problem, as it is described"
    finally:
        for name in [name for name in sys.modules if name.startswith("made_of_openapi")]:
            del sys.modules[name]
