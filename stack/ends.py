"""Ends of supervised processes: time and exit status from supervisord's log, the reason from the process's own."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

# The last error of a process is at the end of its log, behind at most one long traceback.
TAIL_BYTES = 256 * 1024
# supervisord notes a start a moment after it, and the clocks of two logs are rounded differently.
ROUNDING_SECONDS = 1.5

_HAPPENED = re.compile(r"^(\S+ \S+),\d+ \w+ (spawned|exited|stopped): '?([^' ]+)'?(?: \((.*)\))?")
_CONSOLE = re.compile(r"^(\d{4}-\S+Z) \[(\w+) *\] (.*)$")
_REASON = re.compile(r"\breason=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\S+)")
# Java's and PostgreSQL's.
_SERVER = re.compile(r"^\[?\d{4}-\d\d-\d\d[ T](?:.*?\b(ERROR|FATAL|PANIC|SEVERE)\b:?\s*(.*))?")
# A traceback that is drawn.
_FRAME = ("│", "╭", "╰")
# The event of the one line that our processes log when they refuse to go on.
REFUSAL = "stopped"


@dataclass(frozen=True)
class End:
    """An end that was not requested: when the process began and ended, in seconds of the epoch, and its exit status."""

    began: float
    at: float
    how: str

    @property
    def lived(self) -> float:
        return self.at - self.began


@dataclass(frozen=True)
class EndReason:
    """Why a process ended. `refused`: a person has to act, as the text describes."""

    text: str
    refused: bool = False


class _Line(NamedTuple):
    """`level` of one without a level is raw."""

    at: float | None
    level: str
    text: str
    refused: bool = False


def ends(log: Path) -> dict[str, list[End]]:
    """By process, the oldest first, since its last requested start; requested ends are left out."""
    by_process: dict[str, list[End]] = {}
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
            by_process.pop(name, None)
        else:
            by_process.setdefault(name, []).append(
                End(began.get(name, at), at, (how or "").partition(";")[0])
            )
    return by_process


def end_reason(log: Path, end: End) -> EndReason:
    """The reason of an end: the last error that the process logged in that life, or that it logged none."""
    lines = _of_life(list(_read(_tail(log))), end)
    errors = [line for line in lines if line.level == "error"]
    by_itself = end.how.startswith("exit status")
    if by_itself and lines and lines[-1].level == "raw":
        # A last line without a level is a reason: our processes print nothing else.
        errors.append(lines[-1])
    if by_itself and errors and errors[-1].refused:
        return EndReason(errors[-1].text, refused=True)
    return EndReason(f"{end.how}: {errors[-1].text}" if errors else f"{end.how}; it logged no error")


def _of_life(lines: list[_Line], end: End) -> list[_Line]:
    """From the first line on that was written after the life began; all, where no line has a time."""
    for number, line in enumerate(lines):
        if line.at is not None and line.at >= end.began - ROUNDING_SECONDS:
            return lines[number:]
    dated = [number for number, line in enumerate(lines) if line.at is not None]
    # A process that ended before it could log printed raw lines at the most.
    return lines[dated[-1] + 1 :] if dated else lines


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _read(lines: Iterable[str]) -> Iterator[_Line]:
    in_traceback = False
    for line in lines:
        if line.startswith("%") or not line.strip():
            # librdkafka's own.
            continue
        if line.startswith(("Traceback ", "  ", *_FRAME)):
            in_traceback = True
            continue
        if line.startswith("{") and (ours := _json(line)) is not None:
            yield ours
        elif match := _CONSOLE.match(line):
            moment, level, rest = match.groups()
            reason = _REASON.search(rest)
            yield _ours(moment, level, re.split(r"\s{2,}| \[", rest)[0], reason and _unquoted(reason[1]))
        elif match := _SERVER.match(line):
            yield _Line(None, "error" if match[1] else "info", match[2] if match[1] else line)
        elif line.startswith("error: "):
            yield _Line(None, "error", line.removeprefix("error: "), refused=True)
        else:
            # The message of an exception follows its traceback.
            yield _Line(None, "error" if in_traceback else "raw", line)
        in_traceback = False


def _json(line: str) -> _Line | None:
    try:
        record = json.loads(line)
        return _ours(record["at"], record["level"], record["event"], record.get("reason"))
    except (ValueError, KeyError, TypeError):
        return None


def _ours(moment: str, level: str, event: str, reason: object) -> _Line:
    at = datetime.fromisoformat(moment).timestamp()
    is_error = level in ("error", "critical")
    if event == REFUSAL and is_error and reason:
        return _Line(at, "error", str(reason), refused=True)
    return _Line(at, "error" if is_error else level, f"{event}: {reason}" if reason else event)


def _unquoted(value: str) -> str:
    return str(ast.literal_eval(value)) if value[:1] in ("'", '"') else value
