"""The commands that docs/operations.md shows for containers exist and are understood."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from stack import cli

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "operations.md").read_text()
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# What stands for a value of the reader's.
VALUES = {"PIPELINE": "top-sales-by-city", "N": "2", "WHY": "why", "NAME": "Ada", "FILE": "sales_mine.csv"}
RUN = re.compile(r"docker compose (?:exec|run)((?: -\S+)*) (\S+) python -m ([^`]+)")
ROWS = re.findall(r"^\| (`electrored .*) \| (.*) \|$", TEXT, re.MULTILINE)
# Below "A managed Kafka" a command has three lines.
TYPED = [
    (service, shlex.split(line)) for _, service, line in RUN.findall(re.sub(r" -e \S+|\\\n\s*", "", TEXT))
]


def _parsed(app: Any, words: list[str]) -> None:
    """As the program does it, up to where the command would begin; raises what it would print."""
    command: Any = get_command(app)
    context = command.context_class(command, info_name="program")
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(context, words)
    values = [re.sub(r"\b[A-Z]+\b", lambda at: VALUES.get(at[0], at[0]), word) for word in words]
    command.make_context("command", values, parent=context)


def _app(module: str) -> Any:
    name = f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module
    found = importlib.import_module(name)
    if hasattr(found, "app"):
        return found.app
    app = typer.Typer()
    app.command()(found.main)
    return app


@pytest.mark.parametrize(("service", "words"), TYPED, ids=lambda value: " ".join(value))
def test_a_command_is_in_the_image_of_its_service_and_is_understood(service: str, words: list[str]) -> None:
    assert SERVICES[service]["image"].startswith("electrored:")
    module, *arguments = words
    copied = re.findall(r"^COPY (\w+) \./\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert module.split(".")[0] in copied
    if module == "observability.letters":
        assert (ROOT / "observability" / "letters.py").exists()
    _parsed(_app(module), arguments)


def test_a_command_that_means_nothing_is_noticed() -> None:
    with pytest.raises(Exception, match="No such command"):
        _parsed(_app("streaming"), ["advance", "PIPELINE"])
    with pytest.raises(Exception, match="No such option"):
        _parsed(_app("streaming"), ["diff", "PIPELINE", "N", "--now"])


def test_every_command_of_electrored_has_its_line() -> None:
    """`doctor` checks the machine that the embedded stack is started on."""
    shown = {name for embedded, _ in ROWS for name in re.findall(r"`electrored ([\w-]+)", embedded)}
    assert shown | {"doctor"} == set(get_command(cli.app).commands)  # type: ignore[attr-defined]
    for embedded, _ in ROWS:
        for line in re.findall(r"`electrored ([^`]+)`", embedded):
            _parsed(cli.app, shlex.split(line))


def test_services_that_are_named_are_there() -> None:
    named = re.findall(r"docker compose (?:logs|stop|build|exec -T|exec) ([a-z][a-z-]+)", TEXT)
    assert named
    assert set(named) <= set(SERVICES)
    back = re.search(r"docker compose up --no-build --no-deps --detach ([^`]+?)\n```", TEXT)
    assert back
    services = set(back[1].replace("\\\n", " ").split())
    # All of ours that go on, but for the simulators.
    assert services == {
        name
        for name, service in SERVICES.items()
        if service["image"].startswith("electrored:") and not service["restart"].startswith("on-failure")
    } - {"till", "csv-files", "payments"}
