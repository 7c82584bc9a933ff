"""supervisord's configuration survives its own parser, and what is in it is what was meant."""

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
from stack.supervisor import last_line, render

AWKWARD = {"PLAIN": "value", "PERCENT": "p%40ss%", "SPACES": "a b, c=d", "SINGLE": "it's"}


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


def test_the_last_line_is_the_last_that_is_not_blank(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == "it wrote nothing"
    log.write_text("first\n  reason of death  \n\n\n")
    assert last_line(log) == "reason of death"
