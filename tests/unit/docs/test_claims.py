"""What README and docs/operations.md state as refused or survived has a test beside it, named here.

A statement that is reworded, or a test that is renamed or removed, fails here; so does a new promise without a test.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.docs.claims import CLAIMS

PROJECT = Path(__file__).resolve().parents[3]


@cache
def text_of(document: str) -> str:
    """The document in one line, so that a claim may span lines of it."""
    return " ".join((PROJECT / document).read_text().split())


@cache
def functions_in(path: str) -> frozenset[str]:
    tree = ast.parse((PROJECT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(
    ("document", "claim"), [(document, claim) for document, claims in CLAIMS.items() for claim in claims]
)
def test_a_claim_stands_in_its_document_and_has_its_tests(document: str, claim: str) -> None:
    assert claim in text_of(document), "reworded: name it here as it stands now, or take it out"
    assert CLAIMS[document][claim], "no test"
    for test in CLAIMS[document][claim]:
        path, _, name = test.partition("::")
        assert name in functions_in(f"tests/{path}"), f"there is no {test}"


def test_every_promise_is_a_claim() -> None:
    body = (PROJECT / "README.md").read_text().split("## What is promised\n", 1)[1].split("\n## ", 1)[0]
    items = [" ".join(item.split()) for item in re.split(r"(?m)^- ", body)[1:]]
    assert len(items) >= 6
    without = [item for item in items if not any(claim in item for claim in CLAIMS["README.md"])]
    assert not without


@cache
def soak_in(path: str) -> frozenset[str]:
    """The functions of a module that `make test` leaves to `make test-all`."""
    tree = ast.parse((PROJECT / path).read_text())
    every = any(
        isinstance(node, ast.Assign) and ast.unparse(node) == "pytestmark = pytest.mark.soak"
        for node in tree.body
    )
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and (every or "pytest.mark.soak" in map(ast.unparse, node.decorator_list))
    )


@pytest.mark.parametrize("claim", CLAIMS["README.md"])
def test_a_promise_is_shown_by_make_test_already(claim: str) -> None:
    tests = [test.partition("::") for test in CLAIMS["README.md"][claim]]
    assert [name for path, _, name in tests if name not in soak_in(f"tests/{path}")]
