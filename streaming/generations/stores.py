"""Folders of local stores, and deletion of those whose generation is retired.

A store is a cache of a state topic, which is deleted with its generation.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from observability import logs

_log = logs.get(__name__)


def folder(state_dir: Path, generation: str, instance_id: int | str) -> Path:
    """The store of a generation (`<pipeline>.gN`) of one worker or replay slice."""
    return state_dir / f"{generation}.slot{instance_id}"


def sweep(
    state_dir: Path, pipeline: str, instance_id: int | str, is_over: Callable[[int], bool]
) -> list[Path]:
    """Delete this instance's stores of generations for which `is_over`; returns their folders.

    Those of other instances stay: their workers may still run. Slices only run on a live generation, so their stores of
    other ones are deleted too.
    """
    pattern = re.compile(rf"{re.escape(pipeline)}\.g(\d+)\.slot({re.escape(str(instance_id))}|slice\d+)")
    gone = []
    for path in sorted(state_dir.iterdir()) if state_dir.is_dir() else ():
        named = pattern.fullmatch(path.name)
        if named is None or not is_over(int(named[1])):
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            # Two workers delete the same slice's store at once; the next start deletes the rest.
            _log.warning("a store is not deleted", store=str(path), reason=str(error))
            continue
        gone.append(path)
        _log.info("the store of a retired generation is deleted", store=str(path))
    return gone
