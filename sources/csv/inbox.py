"""The folder that files are put in. What is taken is a copy of ours, so nobody changes or removes it meanwhile.

    inbox/sales_*.csv              what waits
    inbox/.taking/<sha256>         the copy that is being taken, made while its content was hashed
    inbox/processed/YYYY/MM/DD/    what was taken
    inbox/rejected/                what was not, each with NAME.reason.txt

Every step may be repeated: whoever comes after a kill finds either the file or its copy, and the ledger says which.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from sources.errors import Refused

PATTERN = "sales_*.csv"
_AT_ONCE = 1 << 20
# What says "finished" may be a chmod or chown while somebody goes on writing: a write within this time shows.
_RENAMED_SETTLE_SECONDS = 1.0
# Of a name that a file is kept under: the 255 bytes of a file system leave room for a hash and ".reason.txt".
_MOST_NAME_BYTES = 200


@dataclass(frozen=True)
class Waiting:
    """A file in the inbox as it was looked at. `problem`: why it can never be taken."""

    name: str
    status: os.stat_result
    is_complete: bool
    problem: str = ""

    @property
    def shown(self) -> str:
        """Its name as text, whatever bytes it is."""
        return os.fsencode(self.name).decode(errors="replace")

    @property
    def since(self) -> float:
        """When it was last changed, in seconds of the Unix epoch."""
        return self.status.st_ctime


@dataclass(frozen=True)
class Copy:
    """A content that is ours now."""

    sha256: str
    size: int


class Inbox:
    """The folder; made with its own folders when they are missing."""

    def __init__(self, folder: Path, settle_seconds: float) -> None:
        self._folder = folder
        self._settle_seconds = settle_seconds
        self._taking = folder / ".taking"
        self._rejected = folder / "rejected"

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time moves files here; the kernel lets go when it ends, however it ends.

        Raises Refused where somebody else's folder or link would have us write, or take, what is not ours.
        """
        with suppress(FileExistsError):
            self._taking.mkdir(mode=0o700, parents=True)
        status = self._taking.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise Refused(f"{self._taking} is {_kind(status.st_mode)}, not a folder of ours: remove it")
        if status.st_uid != os.geteuid():
            raise Refused(f"{self._taking} is of another user, who could change what is taken: remove it")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Refused(
                f"{self._taking} may be written by others, who could change what is taken: chmod 700 it"
            )
        path = self._taking / "lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"{path} cannot be opened ({error.strerror}): remove it") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(f"another process is taking the files of {self._folder}; wait for it") from None
            yield
        finally:
            os.close(lock)

    def waiting(self) -> list[Waiting]:
        """What waits, oldest first; nothing is opened."""
        found = []
        try:
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in entries if fnmatch.fnmatchcase(entry.name, PATTERN)]
        except FileNotFoundError:
            return []
        for name in names:
            try:
                status = (self._folder / name).lstat()
            except FileNotFoundError:
                continue
            found.append(self._looked_at(name, status))
        return sorted(found, key=lambda one: (one.status.st_mtime_ns, one.name))

    def _looked_at(self, name: str, status: os.stat_result) -> Waiting:
        if not stat.S_ISREG(status.st_mode):
            return Waiting(name, status, True, f"it is {_kind(status.st_mode)}, not a regular file")
        # A write sets both times alike; a rename, and whatever else says "finished", only the second. Where a file
        # system does not say so, the file settles for longer. Any change of it begins that anew.
        is_renamed = status.st_ctime_ns > status.st_mtime_ns
        settle = min(_RENAMED_SETTLE_SECONDS, self._settle_seconds) if is_renamed else self._settle_seconds
        return Waiting(name, status, time.time() - status.st_ctime >= settle)

    def copy(self, waiting: Waiting) -> Copy | None:
        """Make the content ours; None if the file went, or was written to meanwhile: it is complete another time.

        Raises Refused for what is no file that can be read, or that could not be removed afterwards: taken back one
        day, it would be taken again at once.
        """
        self._check_removable(waiting)
        try:
            source = open_regular(self._folder / waiting.name)
        except FileNotFoundError:
            return None
        partial = self._taking / "partial"
        digest, size = hashlib.sha256(), 0
        try:
            before = os.fstat(source)
            with _create(partial) as target:
                while data := os.read(source, _AT_ONCE):
                    digest.update(data)
                    target.write(data)
                    size += len(data)
                target.flush()
                os.fsync(target.fileno())
            after = os.fstat(source)
        finally:
            os.close(source)
        if _identity(before) != _identity(waiting.status) or _identity(after) != _identity(before):
            partial.unlink()
            return None
        copy = Copy(digest.hexdigest(), size)
        partial.rename(self.path_of(copy.sha256))
        return copy

    def path_of(self, sha256: str) -> Path:
        """Where the copy is, if there is one."""
        return self._taking / sha256

    def copies(self) -> list[str]:
        """The hashes of all copies that lie here."""
        if not self._taking.exists():
            return []
        return [path.name for path in self._taking.iterdir() if len(path.name) == 64]

    def _check_removable(self, waiting: Waiting) -> None:
        folder = self._folder.stat()
        owners = (0, folder.st_uid, waiting.status.st_uid)
        is_others = folder.st_mode & stat.S_ISVTX and os.geteuid() not in owners
        if is_others or not os.access(self._folder, os.W_OK | os.X_OK, effective_ids=True):
            raise Refused(
                f"it could not be removed from {self._folder}: we may not write there, or it is not ours"
            )

    def let_go(self, waiting: Waiting) -> None:
        """Remove the file whose content is ours, unless another took its place meanwhile.

        Raises Refused if it cannot be removed.
        """
        path = self._folder / waiting.name
        try:
            if _identity(path.lstat()) == _identity(waiting.status):
                path.unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(f"it cannot be removed from the inbox: {error.strerror}") from error

    def drop(self, sha256: str) -> None:
        """Remove a copy that is of no use."""
        self.path_of(sha256).unlink(missing_ok=True)

    def finish(self, sha256: str, name: str, at: datetime) -> None:
        """Move the copy to where what was taken is kept, by the day of `at`; nothing if it is there already."""
        self._move(sha256, self._folder / "processed" / f"{at:%Y/%m/%d}", name)

    def reject(self, sha256: str, name: str, reason: str) -> None:
        """Move the copy to where what cannot be taken is kept, the reason beside it."""
        self._explain(self._free(self._rejected, name, sha256), reason)
        self._move(sha256, self._rejected, name)

    def reject_special(self, waiting: Waiting) -> None:
        """The same for what is no regular file; it is moved as it is and never opened.

        Raises Refused for what cannot be moved, a folder of somebody else's for instance: it waits.
        """
        try:
            target = self._free(self._rejected, waiting.name, f"{waiting.status.st_ino}")
            self._explain(target, waiting.problem)
            (self._folder / waiting.name).rename(target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(f"{waiting.problem}, and it cannot be moved: {error.strerror}") from error

    def _move(self, sha256: str, folder: Path, name: str) -> None:
        try:
            self.path_of(sha256).rename(self._free(folder, name, sha256))
        except FileNotFoundError:
            return

    def _explain(self, target: Path, reason: str) -> None:
        with _create(target.with_name(f"{target.name}.reason.txt")) as file:
            file.write(f"{reason}\n".encode())

    @staticmethod
    def _free(folder: Path, name: str, distinction: str) -> Path:
        """A path in the folder that is nobody else's: a name may come again with another content."""
        folder.mkdir(parents=True, exist_ok=True)
        # A name of ours has neither a slash nor a NUL; one from the ledger is text that stood for one.
        path = folder / _cut(Path(name).name)
        if os.path.lexists(path):
            path = folder / f"{path.name.removesuffix('.csv')}.{distinction[:16]}.csv"
        return path


def _create(path: Path) -> BinaryIO:
    """A new file to write to. What lies there goes: a left-over of ours, or a link to what is not ours to write."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def open_regular(path: Path) -> int:
    """A descriptor to read a regular file, following no link and waiting for nobody. Raises Refused for another."""
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise Refused(f"{path} is {_kind(mode)}, not a regular file")
    return fd


def _cut(name: str) -> str:
    """The name, in as many bytes as a name may have."""
    raw = os.fsencode(name)
    if len(raw) <= _MOST_NAME_BYTES:
        return name
    stem, suffix = os.path.splitext(raw)  # noqa: PTH122
    suffix = suffix[:_MOST_NAME_BYTES]
    return (stem[: _MOST_NAME_BYTES - len(suffix)] + suffix).decode(errors="ignore")


def sha256_of(fd: int) -> str:
    """The hash of a file's content, in flat memory."""
    digest, offset = hashlib.sha256(), 0
    while data := os.pread(fd, _AT_ONCE, offset):
        digest.update(data)
        offset += len(data)
    return digest.hexdigest()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")
