"""A worker's instance id, if `--slot` gives none: the first that is free in its state folder, locked while it runs.

It names the local store and ends the transactional ids. Two workers with one id would fence each other, so it is a file
lock, which the kernel releases however the process ends; the next worker takes over store and ids. The id begins with a
name of the folder, so that workers on two machines never share one.
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
def free_instance_id(state_dir: Path, pipeline: str) -> Iterator[str]:
    """The pipeline's first id of the folder that no running process has locked; locked until the context ends."""
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
    """The folder's name, chosen by the first process."""
    file = folder / "name"
    if not file.exists():
        draft = folder / f"name.{uuid4().hex}"
        draft.write_text(uuid4().hex[:8])
        try:
            # Unlike a rename, a link does not replace a file that another process has just created.
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text()
