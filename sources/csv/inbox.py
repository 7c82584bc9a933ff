"""The folder that files are put in. The source ingests its own copy, so that no other process changes it meanwhile.

    inbox/sales_*.csv[.gz]         what waits (`contracts.inbox` has the names)
    inbox/.taking/<sha256>         the copy that is being taken, unpacked, written while its content was hashed
    inbox/.taking/originals/       what was copied, watched for late writers (`originals.py`)
    inbox/processed/YYYY/MM/DD/    what was taken
    inbox/rejected/                what was not, each with NAME.reason.txt

Every step is idempotent: after a kill either the file or its copy is there, and the position store records which.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from contracts.inbox import listing, natural
from kafka_client.errors import Refused
from sources.csv import wholeness
from sources.csv.content import Cut, Damaged, content, is_packed, raw
from sources.csv.originals import Original, Originals
from sources.csv.regular import Copy, create, cut, kind_of, open_regular, write

# A change of ctime alone may be a chmod or chown while another process goes on writing: a write within this time shows.
_RENAMED_SETTLE_SECONDS = 1.0
_PACKED = re.compile(r"\.gz$", re.IGNORECASE)
_SUFFIX = re.compile(r"\.csv(?:\.gz)?$", re.IGNORECASE)
SETTLING = "it was written to just now"


@dataclass(frozen=True)
class Waiting:
    """A file in the inbox as it was looked at.

    `unfinished`: why it may not be whole yet; `problem`: why it can never be taken.
    """

    name: str
    status: os.stat_result
    unfinished: str = ""
    problem: str = ""

    @property
    def is_complete(self) -> bool:
        return not self.unfinished

    @property
    def shown(self) -> str:
        """Its name as text, whatever bytes it is."""
        return os.fsencode(self.name).decode(errors="replace")

    @property
    def since(self) -> float:
        """When it was last changed, in seconds of the Unix epoch."""
        return self.status.st_ctime


class Unfinished(Exception):
    """The file is not whole yet; the message has the reason."""


class Inbox:
    """The folder; created with its own folders when they are missing."""

    def __init__(self, folder: Path, settle_seconds: float) -> None:
        self._folder = folder
        self._settle_seconds = settle_seconds
        self._taking = folder / ".taking"
        self._rejected = folder / "rejected"
        self._originals = Originals(self._taking / "originals")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the inbox for one process; the kernel releases it when the process ends, however it ends.

        Raises Refused where a folder or link of another user would redirect what is written or taken.
        """
        with suppress(FileExistsError):
            self._taking.mkdir(mode=0o700, parents=True)
        status = self._taking.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise Refused(f"{self._taking} is {kind_of(status.st_mode)}, not a folder of ours: remove it")
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
        """What waits, oldest first; what has settled is opened, to see whether it is written to and how it ends."""
        files = []
        try:
            names = listing(self._folder).files
        except FileNotFoundError:
            return []
        processes = wholeness.Processes()
        for name in names:
            try:
                status = (self._folder / name).lstat()
                files.append(self._looked_at(name, status, processes))
            except FileNotFoundError:
                continue
        return sorted(files, key=lambda one: (one.status.st_mtime_ns, natural(one.name), one.name))

    def _looked_at(self, name: str, status: os.stat_result, processes: wholeness.Processes) -> Waiting:
        if not stat.S_ISREG(status.st_mode):
            return Waiting(name, status, problem=f"it is {kind_of(status.st_mode)}, not a regular file")
        # A write sets mtime and ctime alike; a rename, as other marks of a finished file, only ctime. On a file system
        # without that difference the file settles for longer. Any change restarts the time.
        is_renamed = status.st_ctime_ns > status.st_mtime_ns
        settle = min(_RENAMED_SETTLE_SECONDS, self._settle_seconds) if is_renamed else self._settle_seconds
        age = time.time() - status.st_ctime
        if age < settle:
            return Waiting(name, status, SETTLING)
        try:
            fd = open_regular(self._folder / name)
        except Refused:
            # `copy` raises the reason.
            return Waiting(name, status)
        try:
            return Waiting(name, status, wholeness.unfinished(fd, age, processes))
        finally:
            os.close(fd)

    def copy(self, waiting: Waiting) -> Copy | None:
        """Copy the content; None if the file went, or was written to meanwhile: a later run takes it.

        Raises Unfinished for what turns out not to be whole, and Refused for what is no file that can be read, or that
        could not be removed afterwards: retracted later, it would be taken again at once.
        """
        self._check_removable(waiting)
        try:
            source = open_regular(self._folder / waiting.name)
        except FileNotFoundError:
            return None
        partial = self._taking / "partial"
        try:
            before = os.fstat(source)
            copy = self._copied(source, partial, time.time() - waiting.status.st_ctime)
            after = os.fstat(source)
        finally:
            os.close(source)
        if _identity(before) != _identity(waiting.status) or _identity(after) != _identity(before):
            partial.unlink()
            return None
        partial.rename(self.path_of(copy.sha256))
        return copy

    @staticmethod
    def _copied(source: int, target: Path, age: float) -> Copy:
        try:
            copy, is_closed = write(target, content(source))
        except Cut:
            if age < wholeness.UNENDED_SECONDS:
                raise Unfinished("its gzip data are cut off: it may still be written") from None
            return replace(write(target, raw(source))[0], problem="its gzip data are cut off")
        except Damaged as error:
            return replace(write(target, raw(source))[0], problem=str(error))
        # gzip data mark their own end; a line end within quotes is none.
        if not (is_closed or is_packed(source)) and age < wholeness.UNENDED_SECONDS:
            raise Unfinished(f"a quote is open at its end: {wholeness.UNENDED}")
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

    def let_go(self, waiting: Waiting, sha256: str) -> None:
        """Put the file aside whose content was copied, unless another file took its place meanwhile.

        Raises Refused if it cannot be removed.
        """
        path = self._folder / waiting.name
        try:
            if _identity(path.lstat()) == _identity(waiting.status):
                self._originals.keep(path, waiting.status, sha256)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(f"it cannot be removed from the inbox: {error.strerror}") from error

    def written_after(self) -> list[Original]:
        """Originals that were written to after they were copied."""
        return self._originals.changed()

    def put_back(self, original: Original) -> None:
        """Put an original that was written to after its copy back into the inbox, with all that it holds now."""
        self._originals.put_back(original, self._free(self._folder, original.path.name, original.sha256))

    def forget(self, sha256: str | None = None) -> None:
        """Remove the originals of this content; without one, those that were watched for long enough."""
        self._originals.forget(sha256)

    def drop(self, sha256: str) -> None:
        """Remove a copy."""
        self.path_of(sha256).unlink(missing_ok=True)

    def finish(self, sha256: str, name: str, at: datetime) -> None:
        """Move the copy to `processed/`, by the day of `at`; no-op if it is there already."""
        self._move(sha256, self._folder / "processed" / f"{at:%Y/%m/%d}", self._kept_name(sha256, name))

    def reject(self, sha256: str, name: str, reason: str) -> None:
        """Move the copy to `rejected/`, the reason beside it."""
        name = self._kept_name(sha256, name)
        self._explain(self._free(self._rejected, name, sha256), reason)
        self._move(sha256, self._rejected, name)

    def reject_special(self, waiting: Waiting) -> None:
        """The same for what is no regular file; it is moved as it is and never opened.

        Raises Refused for what cannot be moved, for instance a folder of another user: it waits.
        """
        try:
            target = self._free(self._rejected, waiting.name, f"{waiting.status.st_ino}")
            self._explain(target, waiting.problem)
            (self._folder / waiting.name).rename(target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Refused(f"{waiting.problem}, and it cannot be moved: {error.strerror}") from error

    def _kept_name(self, sha256: str, name: str) -> str:
        """The name to keep the copy under: without `.gz` if it was unpacked."""
        path = self.path_of(sha256)
        if not _PACKED.search(name) or not path.exists():
            return name
        with path.open("rb") as file:
            return name if is_packed(file.fileno()) else _PACKED.sub("", name)

    def _move(self, sha256: str, folder: Path, name: str) -> None:
        try:
            self.path_of(sha256).rename(self._free(folder, name, sha256))
        except FileNotFoundError:
            return

    def _explain(self, target: Path, reason: str) -> None:
        with create(target.with_name(f"{target.name}.reason.txt")) as file:
            file.write(f"{reason}\n".encode())

    @staticmethod
    def _free(folder: Path, name: str, distinction: str) -> Path:
        """A path in the folder that is not taken: a name may come again with another content."""
        folder.mkdir(parents=True, exist_ok=True)
        # A name from the inbox has neither a slash nor a NUL; one from the position store is any text.
        path = folder / cut(Path(name).name)
        if os.path.lexists(path):
            suffix = _SUFFIX.search(path.name)
            stem, end = path.name[: suffix.start() if suffix else None], suffix.group() if suffix else ".csv"
            path = folder / f"{stem}.{distinction[:16]}{end}"
        return path


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
