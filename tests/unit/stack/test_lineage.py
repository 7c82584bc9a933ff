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
    transformations = [{"type": kind, "subtype": subtype, "description": ""}] if subtype else []
    return {
        "namespace": "kafka://k:1", "name": name, "column": column, "job": "j", "transformations": transformations,
        "next": list(following),
    }  # fmt: skip


def shown(root: dict[str, Any], direction: str = "upstream", *, deciding: bool = True) -> list[str]:
    """The lines of the tree."""
    out = io.StringIO()
    tree = lineage.tree({"direction": direction, "step": root}, deciding=deciding)
    Console(file=out, width=200).print(tree, highlight=False)
    return [line.strip() for line in out.getvalue().splitlines()]


def test_what_only_decides_is_one_line() -> None:
    filters = (("log", "seq"), ("log", "source"), ("table", "n"))
    deciding = [step(name, "FILTER", column=column) for name, column in filters]
    assert shown(step("view", "", step("state", "AGGREGATION", *deciding))) == [
        "view.total  kafka://k:1",
        "└── state.total  kafka://k:1  aggregation · j",
        "└── decided by log: seq (filter), source (filter); table: n (filter) · j",
    ]


def test_without_all_there_is_only_what_a_value_is_made_of() -> None:
    state = step("state", "AGGREGATION", step("log", "FILTER", column="seq"))
    state["transformations"].append({"type": "INDIRECT", "subtype": "FILTER", "description": ""})
    assert shown(step("view", "", state), deciding=False) == [
        "view.total  kafka://k:1",
        "└── state.total  kafka://k:1  aggregation · j",
    ]


def test_on_the_way_back_it_decides_over_what_comes_of_it() -> None:
    lines = shown(step("log", "", step("state", "FILTER")), "downstream")
    assert "└── decides over state: total (filter) · j" in lines


def test_names_are_shown_as_they_are() -> None:
    text = "\n".join(shown(step("file[/red].csv", "", step("[bold]log", "FILTER", column="[x]"))))
    assert "file[/red].csv.total" in text
    assert "[bold]log: [x] (filter)" in text


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (httpx.ConnectError("refused"), "does not answer: refused"),
        (httpx.Response(404, json={"detail": "no job reads or writes x"}), "no job reads or writes x"),
        (httpx.Response(502, text="<html>"), "a body that is not the API's"),
        (httpx.Response(404, json=["not found"]), "a body that is not the API's"),
    ],
    ids=["away", "an unknown dataset, in the API's own words", "of a proxy", "of another service"],
)
def test_an_answer_without_a_tree_is_one_line(
    monkeypatch: pytest.MonkeyPatch, answer: httpx.Response | Exception, sentence: str
) -> None:
    def get(*_: object, **__: object) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(httpx, "get", get)
    with pytest.raises(StackError, match=sentence):
        lineage.ask("http://127.0.0.1:1", "x", "upstream")
