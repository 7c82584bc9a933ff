"""A worker's slot, when nobody gave it one: the first that is free in its state folder, held as long as it lives.

A slot is where a local store is and what the transactional ids end with. Two workers in one slot would fence each
other, so it is locked by the kernel, which gives it free however its holder ends; the next one finds store and ids as
they were left. The name begins with the folder's own, so that workers on two machines never share one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


@contextmanager
def free_slot(state_dir: Path, pipeline: str) -> Iterator[str]:
    """The pipeline's first slot of the folder that no living process has; it is had until the end."""
    folder = state_dir / "slots"
    folder.mkdir(parents=True, exist_ok=True)
    name = _name(folder)
    for number in count():
        try:
            with FileLock(folder / f"{pipeline}.{number}.lock", timeout=0):
                yield f"{name}-{number}"
            return
        except Timeout:
            continue


def _name(folder: Path) -> str:
    """The folder's name, the same for all who ask; whoever comes first gives it."""
    file = folder / "name"
    if not file.exists():
        draft = folder / f"name.{uuid4().hex}"
        draft.write_text(uuid4().hex[:8])
        try:
            # Unlike a rename it does not take the place of what another process has just put there.
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text()
