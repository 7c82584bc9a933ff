"""Modules, functions and links that the documents name exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
ROOMS = (
    *("contracts", "observability", "kafka_client", "lineage", "observer", "sources", "streaming", "api"),
    *("electrored_dagster", "simulators", "stack", "benchmarks", "tests", "deploy", "docs"),
)
DOCUMENTS = sorted(
    path.relative_to(PROJECT).as_posix()
    for path in (*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"))
)
# Changes of the past name what there was.
NAMES_TODAY = [name for name in DOCUMENTS if name != "CHANGELOG.md"]
_PATH = re.compile(rf"`((?:{'|'.join(ROOMS)})/[\w./-]*)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_WALK_ROW = re.compile(r"^\| (\d*) \| `([\w/]+\.py)` \| (`[^|]+) \|", re.MULTILINE)
_MODULE = re.compile(r"`(\w+/[\w/]+\.py)`")
_WHERE = re.compile(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)?)`[^`|.;:]{0,20}\(`([\w/]+\.py)`\)")


def text_of(document: str) -> str:
    return (PROJECT / document).read_text()


@cache
def names_in(module: str) -> frozenset[str]:
    """Functions, methods (`Class.method`), classes and constants of a module."""
    names: set[str] = set()
    for node in ast.parse(text_of(module)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{of.name}" for of in node.body if isinstance(of, ast.FunctionDef)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


@cache
def anchors_of(document: str) -> frozenset[str]:
    headings = re.findall(r"^#+ (.*)$", text_of(document), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


@pytest.mark.parametrize("document", NAMES_TODAY)
def test_paths_that_a_document_names_exist(document: str) -> None:
    # What a command generates is there once that has run.
    generated = text_of(".gitignore").split()
    paths = [path for path in _PATH.findall(text_of(document)) if path not in generated]
    missing = [path for path in paths if not (PROJECT / path).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_within_the_repository_lead_somewhere(document: str) -> None:
    here = PROJECT / document
    for link in _LINK.findall(text_of(document)):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target.relative_to(PROJECT).as_posix()), link


def test_the_walk_of_a_sale_names_functions_that_exist() -> None:
    rows = _WALK_ROW.findall(text_of("docs/architecture.md"))
    named = [(module, name) for _, module, names in rows for name in re.findall(r"`([^`]+)`", names)]
    named += [(module, name) for name, module in _WHERE.findall(text_of("docs/architecture.md"))]
    assert [(module, name) for module, name in named if name not in names_in(module)] == []
    known = frozenset[str]().union(
        *(names_in(module) for module in _MODULE.findall(text_of("docs/architecture.md")))
    )
    mentioned = re.findall(r"`([A-Z][A-Za-z]+\.[a-z_]+)`", text_of("docs/architecture.md"))
    assert [name for name in mentioned if name not in known] == []


def test_the_walk_of_a_sale_counts_its_modules() -> None:
    text = text_of("docs/architecture.md")
    numbered = {module: int(number) for number, module, _ in _WALK_ROW.findall(text) if number}
    assert list(numbered.values()) == list(range(1, len(numbered) + 1))
    assert f"**A sale passes {len(numbered)} modules of ours**" in text


def test_decisions_are_numbered_without_holes_and_indexed() -> None:
    pages = sorted(path.name for path in (PROJECT / "docs/decisions").glob("0*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    for number, name in enumerate(pages, 1):
        assert text_of(f"docs/decisions/{name}").startswith(f"# {number}. "), name
    assert re.findall(r"\]\((0[^)]+)\)", text_of("docs/decisions/README.md")) == pages
