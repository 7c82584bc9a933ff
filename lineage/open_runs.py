"""Runs that have begun and not ended: a file for each, so that another process ends those of a killed one.

A process that is alone under its name holds a lock in its folder, which the system releases however the process ends.
The process that gets that lock ends the runs: the next one of the name, or, if none starts, any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

# A check for a dead process holds its lock for some milliseconds; the process itself waits for that.
HELD_SECONDS = 5.0
LOCK = "alive.lock"
# Of runs that go on, beside the folders of what waits for a backend.
OPEN = "open"


@dataclass(frozen=True)
class OpenRun:
    """A run that has begun."""

    run_id: str
    job: str
    parent: str | None = None


class OpenRuns:
    """The open runs of the process whose folder this is; none are stored without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock: FileLock | None = None

    def hold(self) -> list[OpenRun]:
        """Lock the folder; returns the runs that predecessors left, none if another process has the lock."""
        if self._folder is None:
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=HELD_SECONDS)
        except Timeout:
            return []
        self._lock = lock
        return self.all()

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def begin(self, run: OpenRun) -> None:
        if (file := self._file(run.run_id)) is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(asdict(run)), encoding="utf-8")

    def end(self, run_id: str) -> None:
        if (file := self._file(run_id)) is not None:
            file.unlink(missing_ok=True)

    def all(self) -> list[OpenRun]:
        files = [] if self._folder is None else sorted((self._folder / OPEN).glob("*.json"))
        return [run for file in files if (run := _read(file)) is not None]

    def _file(self, run_id: str) -> Path | None:
        return None if self._folder is None else self._folder / OPEN / f"{run_id}.json"


def orphans(own: Path) -> Iterator[Path]:
    """The folders of dead processes, each locked until the next one is asked for."""
    for folder in sorted(own.parent.iterdir()):
        # A process that is not alone under its name has no lock; its folder is shared.
        if folder != own and (folder / LOCK).exists():
            lock = FileLock(folder / LOCK, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield folder
            finally:
                lock.release()


def _read(file: Path) -> OpenRun | None:
    """None if the file is gone, or was cut off as it was written."""
    try:
        return OpenRun(**json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
