"""How supervised processes ended: from supervisord's log when and by what, from a process's own log why."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

# The last words of a process are at the end of its log, behind at most one long traceback.
TAIL_BYTES = 256 * 1024
# supervisord notes a start a moment after it, and the clocks of two logs are rounded differently.
ROUNDING_SECONDS = 1.5

_HAPPENED = re.compile(r"^(\S+ \S+),\d+ \w+ (spawned|exited|stopped): '?([^' ]+)'?(?: \((.*)\))?")
_CONSOLE = re.compile(r"^(\d{4}-\S+Z) \[(\w+) *\] (.*)$")
_STRING = re.compile(r"reason=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)")
# The servers', Java's and PostgreSQL's.
_SERVER = re.compile(r"^\[?\d{4}-\d\d-\d\d[ T].*?\b(?:ERROR|FATAL|PANIC|SEVERE)\b:?\s*(.*)$")
_SERVER_LINE = re.compile(r"^\[?\d{4}-\d\d-\d\d[ T]")
# Of a traceback, Python's own or a framed one; librdkafka's lines.
_NO_WORDS = ("│", "╭", "╰", "%")
# How our processes end that refuse to go on: one line, for a person.
REFUSAL = "stopped"


@dataclass(frozen=True)
class End:
    """One end that was not asked for: when the process began and ended, in seconds of the epoch, and by what."""

    began: float
    at: float
    how: str

    @property
    def lived(self) -> float:
        return self.at - self.began


@dataclass(frozen=True)
class Words:
    """Why a process ended. `refused`: a person has to mend something, and the text says what."""

    text: str
    refused: bool = False


class _Line(NamedTuple):
    at: float | None
    level: str
    text: str
    refused: bool


def ends(log: Path) -> dict[str, list[End]]:
    """By process, the oldest first, since it was last started by somebody: an end that was asked for is none."""
    found: dict[str, list[End]] = {}
    began: dict[str, float] = {}
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        match = _HAPPENED.match(line)
        if match is None:
            continue
        moment, what, name, how = match.groups()
        at = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S").timestamp()  # noqa: DTZ007 - local time, as it writes it
        if what == "spawned":
            began[name] = at
        elif what == "stopped":
            found.pop(name, None)
        else:
            found.setdefault(name, []).append(End(began.get(name, at), at, (how or "").partition(";")[0]))
    return found


def words(log: Path, end: End) -> Words:
    """Why the process ended that way: the last error that it logged in that life, or that it logged none."""
    spoken = [line for line in map(_read, _tail(log)) if line is not None]
    for number, line in enumerate(spoken):
        if line.at is not None and line.at >= end.began - ROUNDING_SECONDS:
            spoken = spoken[number:]
            break
    else:
        if any(line.at is not None for line in spoken):
            spoken = []
    errors = [line for line in spoken if line.level == "error"]
    if errors and errors[-1].refused and end.how.startswith("exit status"):
        return Words(errors[-1].text, refused=True)
    return Words(f"{end.how}: {errors[-1].text}" if errors else f"{end.how}; it logged no error")


def _tail(log: Path) -> Sequence[str]:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return _without_bodies(lines)


def _without_bodies(lines: Sequence[str]) -> list[str]:
    """Raw lines only where they say something: what an exception says is behind its traceback, a refusal is marked."""
    kept, in_traceback = [], False
    for line in lines:
        if line.startswith(("  ", *_NO_WORDS)) or line.startswith("Traceback "):
            in_traceback = in_traceback or not line.startswith("%")
            continue
        if not line.strip():
            continue
        is_said = line.startswith(("{", "error: ")) or _CONSOLE.match(line) or _SERVER_LINE.match(line)
        if is_said or in_traceback:
            kept.append(line)
        in_traceback = False
    return kept


def _read(line: str) -> _Line | None:
    if line.startswith("{"):
        try:
            said = json.loads(line)
        except ValueError:
            return None
        level = str(said.get("level", ""))
        return _ours(str(said.get("at", "")), level, str(said.get("event", "")), said.get("reason"))
    if match := _CONSOLE.match(line):
        moment, level, rest = match.groups()
        reason = _STRING.search(rest)
        return _ours(moment, level, re.split(r"\s{2,}| \[", rest)[0], reason and _unquoted(reason[1]))
    if match := _SERVER.match(line):
        return _Line(None, "error", match[1], refused=False)
    if _SERVER_LINE.match(line):
        return _Line(None, "info", line, refused=False)
    return _Line(None, "error", line.removeprefix("error: "), line.startswith("error: "))


def _ours(moment: str, level: str, event: str, reason: object) -> _Line | None:
    try:
        at = datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None
    text = str(reason) if event == REFUSAL and reason else f"{event}: {reason}" if reason else event
    kind = "error" if level in ("error", "critical") else level
    return _Line(at, kind, text, refused=event == REFUSAL and bool(reason))


def _unquoted(value: str) -> str:
    return str(ast.literal_eval(value)) if value[:1] in "'\"" else value
