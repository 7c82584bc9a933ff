"""Whether a file is not whole yet: a process has it open for writing, or its last record has no line end.

A pause proves nothing: a program may stop in the middle of a number. What cannot be seen here (a writer on another
machine, or one of another user without the right to look) is noticed afterwards, see `originals`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

# Without a line end at its end, and without a visible writer, a file is taken when it has not changed for so long:
# many exports omit the last line end.
UNENDED_SECONDS = 300.0
GZIP = b"\x1f\x8b"
# What programs for DOS write behind the last line.
DOS_END = b"\x1a"
# Leases of these are the server's, or none: they do not show whether the file is open elsewhere.
_REMOTE = ("nfs", "cifs", "smb", "ceph", "9p", "fuse", "glusterfs", "lustre", "afs")

OPEN = "another process has it open for writing"
UNENDED = (
    "its last record has no line end, so it may still be written; it is taken when it has not changed for "
    f"{UNENDED_SECONDS / 60:.0f} minutes"
)


class Processes:
    """The files that visible processes have open for writing; /proc is read once."""

    @cached_property
    def writing(self) -> frozenset[tuple[int, int]]:
        return frozenset(file for process in Path("/proc").glob("[0-9]*") for file in _written_by(process))


def unfinished(fd: int, age_seconds: float, processes: Processes) -> str:
    """Why a file of that age is not whole; empty if it may be. Quotes and gzip are checked while it is read."""
    if is_written(fd, processes):
        return OPEN
    if age_seconds < UNENDED_SECONDS and os.pread(fd, len(GZIP), 0) != GZIP and not _ends(fd):
        return UNENDED
    return ""


def _ends(fd: int) -> bool:
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) in (b"\n", DOS_END)


def is_written(fd: int, processes: Processes) -> bool:
    """Whether a process has the file open for writing, as far as the kernel shows.

    A read lease is refused exactly then, whichever container or user has it; for files of others it takes CAP_LEASE.
    Without a lease, /proc is read.
    """
    status = os.fstat(fd)
    if not _is_remote(status.st_dev):
        try:
            # A writer that comes in between signals the holder, and SIGIO would end the process.
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return True
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP):
                raise
        else:
            return False
    return (status.st_dev, status.st_ino) in processes.writing


def _written_by(process: Path) -> Iterator[tuple[int, int]]:
    try:
        for link in (process / "fd").iterdir():
            for line in (process / "fdinfo" / link.name).read_text().splitlines():
                if line.startswith("flags:") and int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY:
                    status = link.stat()
                    yield status.st_dev, status.st_ino
    except OSError:
        # It ended, closed a file, or is another user's.
        return


@lru_cache
def _is_remote(device: int) -> bool:
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == number:
            return rest.startswith(_REMOTE)
    return False
