"""supervisord's configuration survives its own parser, and its log tells restarts."""

from __future__ import annotations

import shlex
from configparser import RawConfigParser
from pathlib import Path

import pytest
from supervisor.datatypes import dict_of_key_value_pairs
from supervisor.options import expand

from stack.errors import StackError
from stack.layout import Layout
from stack.programs import Program
from stack.status import _shown
from stack.supervisor import State, Supervisor, last_line, render

AWKWARD = {
    "PLAIN": "value",
    "PERCENT": "p%40ss%",
    "SPACES": "a b, c=d",
    "SINGLE": "it's",
}


def _section(tmp_path: Path, program: Program) -> dict[str, str]:
    parser = RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(render(Layout(tmp_path), [program]))
    return dict(parser[f"program:{program.name}"])


def test_commands_and_environments_come_out_as_they_went_in(tmp_path: Path) -> None:
    command = ["/bin/thing", "--format", "%d %s", "two words", "it's"]
    section = _section(tmp_path, Program("thing", command, AWKWARD, lambda: True))
    assert shlex.split(expand(section["command"], {}, "command")) == command
    assert dict_of_key_value_pairs(expand(section["environment"], {}, "environment")) == AWKWARD


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for value in ('say "so"', "so'"):
        with pytest.raises(StackError, match="A has a quote"):
            render(Layout(tmp_path), [Program("thing", ["x"], {"A": value}, lambda: True)])
    with pytest.raises(StackError, match="line end"):
        render(Layout(tmp_path), [Program("thing", ["x", "a\nb"], {}, lambda: True)])


def test_nothing_starts_by_itself_and_all_that_dies_is_started_again(tmp_path: Path) -> None:
    section = _section(tmp_path, Program("thing", ["x"], {}, lambda: True))
    assert section["autostart"] == "false"
    assert section["autorestart"] == "true"


def test_restarts_are_counted_from_the_log(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    lines = [f"2026-11-22 18:00:0{i},0 INFO spawned: '{n}' with pid {i}" for i, n in enumerate("aabaab")]
    layout.supervisor_log.write_text("\n".join(lines))
    assert Supervisor(layout).restarts() == {"a": 3, "b": 1}


@pytest.mark.parametrize(
    ("state", "restarts", "age_seconds", "shown"),
    [
        ("running", 0, 1, "ready"),
        ("running", 5, 3600, "ready"),
        ("running", 5, 6, "dying"),
        ("starting", 0, 0, "starting"),
        ("starting", 3, 0, "dying"),
        ("backoff", 1, 0, "dying"),
        ("fatal", 0, 0, "dying"),
        ("stopping", 0, 0, "stopping"),
        ("exited", 0, 0, "stopped"),
    ],
)
def test_one_that_keeps_dying_is_shown_as_such(
    monkeypatch: pytest.MonkeyPatch, state: str, restarts: int, age_seconds: int, shown: str
) -> None:
    monkeypatch.setattr("stack.status.time.time", lambda: 1_000_000.0)
    assert _shown(State("thing", state, 1, 1_000_000 - age_seconds, ""), restarts) == shown


def test_the_last_line_is_the_last_that_says_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == "it wrote nothing"
    log.write_text("first\n  reason of death  \n\n\n")
    assert last_line(log) == "reason of death"
