"""The API's answer as a tree in a terminal."""

from __future__ import annotations

import io
from typing import Any

import httpx
import pytest
from rich.console import Console

from stack import lineage
from stack.errors import StackError


def step(name: str, subtype: str = "", *following: dict[str, Any], column: str = "total") -> dict[str, Any]:
    kind = "INDIRECT" if subtype == "FILTER" else "DIRECT"
    made = [{"type": kind, "subtype": subtype, "description": ""}] if subtype else []
    return {
        "namespace": "kafka://k:1",
        "name": name,
        "column": column,
        "job": "j",
        "transformations": made,
        "next": list(following),
    }


def test_what_only_decides_is_one_line() -> None:
    deciding = [
        step(name, "FILTER", column=column)
        for name, column in (("log", "seq"), ("log", "source"), ("table", "n"))
    ]
    answer = {
        "direction": "upstream",
        "step": step("view", "", step("state", "AGGREGATION", *deciding)),
    }
    out = io.StringIO()
    Console(file=out, width=200).print(lineage.tree(answer, deciding=True), highlight=False)
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines == [
        "view.total  kafka://k:1",
        "└── state.total  kafka://k:1  aggregation · j",
        "└── decided by log: seq (filter), source (filter); table: n (filter) · j",
    ]


def test_without_all_there_is_only_what_a_value_is_made_of() -> None:
    made = step("state", "AGGREGATION", step("log", "FILTER", column="seq"))
    made["transformations"].append({"type": "INDIRECT", "subtype": "FILTER", "description": ""})
    out = io.StringIO()
    tree = lineage.tree({"direction": "upstream", "step": step("view", "", made)}, deciding=False)
    Console(file=out, width=200).print(tree, highlight=False)
    assert [line.strip() for line in out.getvalue().splitlines()] == [
        "view.total  kafka://k:1",
        "└── state.total  kafka://k:1  aggregation · j",
    ]


def test_on_the_way_back_it_decides_over_what_comes_of_it() -> None:
    answer = {"direction": "downstream", "step": step("log", "", step("state", "FILTER"))}
    out = io.StringIO()
    Console(file=out, width=200).print(lineage.tree(answer, deciding=True), highlight=False)
    assert "└── decides over state: total (filter) · j" in out.getvalue()


def test_an_api_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "get", away)
    with pytest.raises(StackError, match="does not answer: refused"):
        lineage.ask("http://127.0.0.1:1", "x", "upstream")


def test_a_dataset_that_nobody_told_of_is_the_api_s_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        httpx, "get", lambda *_, **__: httpx.Response(404, json={"detail": "no job reads or writes x"})
    )
    with pytest.raises(StackError, match="no job reads or writes x"):
        lineage.ask("http://127.0.0.1:1", "x", "upstream")


def test_an_answer_of_somebody_else_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (httpx.Response(502, text="<html>"), httpx.Response(404, json=["not found"])):
        monkeypatch.setattr(httpx, "get", lambda *_, _answer=answer, **__: _answer)
        with pytest.raises(StackError, match="a body that is not the API's"):
            lineage.ask("http://127.0.0.1:1", "x", "upstream")


def test_names_are_shown_as_they_are() -> None:
    out = io.StringIO()
    answer = {
        "direction": "upstream",
        "step": step("file[/red].csv", "", step("[bold]log", "FILTER", column="[x]")),
    }
    Console(file=out, width=200).print(lineage.tree(answer, deciding=True), highlight=False)
    assert "file[/red].csv.total" in out.getvalue()
    assert "[bold]log: [x] (filter)" in out.getvalue()
