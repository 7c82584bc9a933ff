"""Regular files, opened and written without following links, FIFOs or left-overs."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kafka_client.errors import Refused

# Of a name that a file is kept under: the 255 bytes of a file system leave room for a hash and ".reason.txt".
_MOST_NAME_BYTES = 200


@dataclass(frozen=True)
class Copy:
    """A copied content. `problem`: why it cannot be unpacked; then it is the file unchanged."""

    sha256: str
    size: int
    problem: str = ""


def create(path: Path) -> BinaryIO:
    """Create a file to write to. An existing one is removed: a left-over, or a link to a foreign file."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def open_regular(path: Path) -> int:
    """A descriptor to read a regular file, without following links or blocking. Raises Refused for another kind."""
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
        raise Refused(f"{path} is {kind_of(mode)}, not a regular file")
    return fd


def cut(name: str) -> str:
    """The name, in as many bytes as a name may have."""
    raw = os.fsencode(name)
    if len(raw) <= _MOST_NAME_BYTES:
        return name
    stem, suffix = os.path.splitext(raw)  # noqa: PTH122
    suffix = suffix[:_MOST_NAME_BYTES]
    return (stem[: _MOST_NAME_BYTES - len(suffix)] + suffix).decode(errors="ignore")


def write(target: Path, pieces: Iterable[bytes]) -> tuple[Copy, bool]:
    """Write a file and hash it; with it, whether every quote that it opens is closed."""
    digest, size, quotes = hashlib.sha256(), 0, 0
    with create(target) as file:
        for data in pieces:
            digest.update(data)
            file.write(data)
            size += len(data)
            quotes += data.count(b'"')
        file.flush()
        os.fsync(file.fileno())
    return Copy(digest.hexdigest(), size), quotes % 2 == 0


def kind_of(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")
