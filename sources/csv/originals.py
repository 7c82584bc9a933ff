"""Files that were taken, kept aside for an hour: a program that still had one open writes to it after its copy.

    inbox/.taking/originals/<sha256>.<inode>.<size>.<mtime>/NAME

One that was written to is put back into the inbox: rows that were in it are duplicates there, a number that had been
cut is a correction, and what came after is new.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sources.csv.wholeness import Processes, is_written

# The longest pause of a writer that is noticed; while a writer has the file open, it is kept for longer.
WATCH_SECONDS = 3_600.0


@dataclass(frozen=True)
class Original:
    """One file. `is_changed`: it was written to after it was copied."""

    path: Path
    sha256: str
    is_changed: bool
    since: float

    @property
    def shown(self) -> str:
        return os.fsencode(self.path.name).decode(errors="replace")


class Originals:
    """The folder; created with the first file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, path: Path, status: os.stat_result, sha256: str) -> None:
        """Move a file here that was copied with this `status`; another file in its place is put back."""
        seen = f"{sha256}.{status.st_ino}.{status.st_size}.{status.st_mtime_ns}"
        (self._folder / seen).mkdir(parents=True, exist_ok=True)
        path.rename(self._folder / seen / path.name)

    def all(self) -> Iterator[Original]:
        """Those that lie here; nothing is opened, and a run may move them meanwhile."""
        for path in self._folder.glob("*/*"):
            sha256, *seen = path.parent.name.split(".")
            with suppress(FileNotFoundError):
                status = path.lstat()
                now = [str(number) for number in (status.st_ino, status.st_size, status.st_mtime_ns)]
                yield Original(path, sha256, now != seen, status.st_ctime)

    def changed(self) -> list[Original]:
        """Those that were written to."""
        return [original for original in self.all() if original.is_changed]

    @staticmethod
    def put_back(original: Original, target: Path) -> None:
        """Move it to `target`, where it is taken again as a content of its own when it is whole."""
        try:
            # A rename would replace a file that is put there meanwhile.
            os.link(original.path, target, follow_symlinks=False)
        except OSError:
            # Not for files of others, and not on every file system.
            if os.path.lexists(target):
                raise
            original.path.rename(target)
        _remove(original.path)

    def forget(self, sha256: str | None = None) -> None:
        """Remove those of this content; without one, those that were watched for long enough."""
        processes = Processes()
        for original in self.all():
            if original.sha256 == sha256 or (sha256 is None and _is_over(original, processes)):
                _remove(original.path)
        if self._folder.exists():
            for folder in self._folder.iterdir():
                # Empty, or left so by a kill.
                with suppress(OSError):
                    folder.rmdir()


def _is_over(original: Original, processes: Processes) -> bool:
    if original.is_changed or time.time() - original.since < WATCH_SECONDS:
        return False
    fd = os.open(original.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return not is_written(fd, processes)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    with suppress(OSError):
        path.parent.rmdir()
