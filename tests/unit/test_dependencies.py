"""What a package of ours imports is a declared dependency, not one of another library's."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
ROOMS = PYPROJECT["tool"]["importlinter"]["root_packages"]
OURS = {*ROOMS, "benchmarks", "tests"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*lists: Iterable[str]) -> set[str]:
    return {
        normal(re.split(r"[^\w.-]", requirement)[0]) for requirements in lists for requirement in requirements
    }


def undeclared(folders: Iterable[str], known: set[str]) -> set[str]:
    """Imported modules of which no distribution is declared."""
    modules: set[str] = set()
    for path in (path for folder in folders for path in (PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    return {
        module
        for module in modules - OURS - sys.stdlib_module_names
        if known.isdisjoint(map(normal, distributions.get(module, [])))
    }


def test_imports_of_the_rooms_are_declared() -> None:
    project = PYPROJECT["project"]
    embedded = project["optional-dependencies"]["embedded"]
    image = declared(project["dependencies"])
    assert undeclared([room for room in ROOMS if room != "stack"], image) == set()
    assert undeclared(["stack"], image | declared(embedded)) == set()


def test_imports_of_tests_and_benchmarks_are_declared() -> None:
    project = PYPROJECT["project"]
    lists = (
        project["dependencies"],
        project["optional-dependencies"]["embedded"],
        PYPROJECT["dependency-groups"]["dev"],
    )
    assert undeclared(["tests", "benchmarks"], declared(*lists)) == set()


def test_every_room_is_typed_and_packaged() -> None:
    assert [room for room in ROOMS if not (PROJECT / room / "py.typed").exists()] == []
    setuptools = PYPROJECT["tool"]["setuptools"]
    assert sorted(setuptools["packages"]["find"]["include"]) == sorted(f"{room}*" for room in ROOMS)
    assert "py.typed" in setuptools["package-data"]["*"]
