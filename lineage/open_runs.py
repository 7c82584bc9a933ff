"""Which runs have begun and not ended: a note for each, so that somebody ends those whose process cannot.

A process that is alone under its name holds a lock in its folder, which the system takes back however the process ends.
Who gets that lock knows that nobody is there any more: the next process of the name, or, if none comes, any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

# Who looks whether a process is gone holds its lock for some milliseconds; the process itself waits for that.
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
    """Of the process whose folder this is; none are kept without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lock: FileLock | None = None

    def hold(self) -> list[OpenRun]:
        """Be alone here from now on; gives what predecessors left. Nothing if another process is here."""
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

    def let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def begin(self, begun: OpenRun) -> None:
        if (note := self._note(begun.run_id)) is not None:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps(asdict(begun)), encoding="utf-8")

    def end(self, run_id: str) -> None:
        if (note := self._note(run_id)) is not None:
            note.unlink(missing_ok=True)

    def all(self) -> list[OpenRun]:
        found = [] if self._folder is None else sorted((self._folder / OPEN).glob("*.json"))
        return [begun for note in found if (begun := _read(note)) is not None]

    def _note(self, run_id: str) -> Path | None:
        return None if self._folder is None else self._folder / OPEN / f"{run_id}.json"


def orphans(own: Path) -> Iterator[Path]:
    """The folders of processes that are no more; none comes back until the next one is asked for."""
    for folder in sorted(own.parent.iterdir()):
        # A process that is not alone under its name has no lock, and looks after its folder by itself.
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


def _read(note: Path) -> OpenRun | None:
    """None if it is no more, or was cut off as it was written."""
    try:
        return OpenRun(**json.loads(note.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
