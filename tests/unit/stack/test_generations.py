"""`electrored generations|replay|diff|promote|rollback|retire`: handed on as they are, with the stack's environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from stack import cli, commands
from stack.errors import StackError
from stack.layout import FORMAT
from stack.supervisor import Supervisor

Started = list[tuple[list[str], dict[str, str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    """What the command would have become, in the environment of a stack's folder."""
    (tmp_path / "stack.json").write_text(f'{{"format": {FORMAT}}}')
    started: Started = []

    def instead(program: str, command: list[str], environment: dict[str, str]) -> NoReturn:
        assert program == command[0]
        started.append((command, environment))
        raise SystemExit(7)

    monkeypatch.setattr(os, "execve", instead)
    monkeypatch.setattr(Supervisor, "is_running", lambda _: True)
    return started


@pytest.mark.parametrize("command", commands.GENERATIONS)
def test_arguments_and_exit_code_pass_through(tmp_path: Path, run: Started, command: str) -> None:
    arguments = ["top-sales-by-city", "2", "--csv", "d.csv", "--yes"]
    asked = [command, "--state-dir", str(tmp_path), *arguments]
    assert CliRunner().invoke(cli.app, asked).exit_code == 7
    ((started, environment),) = run
    assert started == [sys.executable, "-P", "-c", commands.STREAMING, command, *arguments]
    assert "//electrored_results:" in environment["ELECTRORED_RESULTS_DB_URL"], "who may write results"
    assert environment["ELECTRORED_STATE_DIR"] == str(tmp_path)


def test_the_option_of_the_stack_may_come_anywhere(tmp_path: Path, run: Started) -> None:
    asked = ["diff", "top-sales-by-city", "--rows", "3", "2", "--state-dir", str(tmp_path), "--json"]
    CliRunner().invoke(cli.app, asked)
    assert run[0][0][4:] == ["diff", "top-sales-by-city", "--rows", "3", "2", "--json"]


def test_a_stack_that_is_down_is_not_asked(
    tmp_path: Path, run: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "is_running", lambda _: False)
    lines = "generations", "lineage top_sales_by_city", "dead-letters", "csv check a.csv", "csv retract a.csv"
    for asked in map(str.split, lines):
        done = CliRunner().invoke(cli.app, [*asked, "--state-dir", str(tmp_path)])
        assert isinstance(done.exception, StackError)
        assert "is not up" in str(done.exception)
        assert done.exception.remedy == "start it: electrored up"
    assert run == []


def test_the_folder_may_be_named_by_the_environment(tmp_path: Path, run: Started) -> None:
    CliRunner().invoke(cli.app, ["generations"], env={"ELECTRORED_STATE_DIR": str(tmp_path)})
    assert run[0][1]["ELECTRORED_STATE_DIR"] == str(tmp_path)


def test_help_needs_no_stack(run: Started) -> None:
    CliRunner().invoke(cli.app, ["diff", "--help", "--state-dir", "/nowhere"])
    assert run[0][0][-2:] == ["diff", "--help"]
