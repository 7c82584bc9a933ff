"""Whose the folders of local stores are, and which of them may go.

A store is a cache of a state topic. When its generation is no more, so is the topic, and nobody reads the store again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from observability import logs

_log = logs.get(__name__)


def folder(state_dir: Path, generation: str, slot: int | str) -> Path:
    """Where the worker in that slot, or a slice of a replay, keeps the totals of a generation (`<pipeline>.gN`)."""
    return state_dir / f"{generation}.slot{slot}"


def sweep(state_dir: Path, pipeline: str, slot: int | str, is_over: Callable[[int], bool]) -> list[Path]:
    """Delete this slot's stores of the generations that are over, by their numbers; gives their folders.

    Those of other slots stay, whose workers may not have left yet. Slices only work on a generation that lives, so
    what one left of another is nobody's.
    """
    ours = re.compile(rf"{re.escape(pipeline)}\.g(\d+)\.slot({re.escape(str(slot))}|slice\d+)")
    gone = []
    for found in sorted(state_dir.iterdir()) if state_dir.is_dir() else ():
        named = ours.fullmatch(found.name)
        if named is None or not is_over(int(named[1])):
            continue
        try:
            shutil.rmtree(found)
        except OSError as error:
            # Of a slice, by two workers at once; what is left goes at the next start.
            _log.warning("a store is not deleted", store=str(found), reason=str(error))
            continue
        gone.append(found)
        _log.info("the store of a generation that is no more is deleted", store=str(found))
    return gone
