"""The content of a file: its bytes, unpacked where they are gzip. A file is identified by it, however it was packed."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator

from sources.csv.wholeness import GZIP

AT_ONCE = 1 << 20
# A file of sales shrinks to a tenth. What grows more than this beyond the first so many bytes is no such file, and
# would fill the disk.
MOST_RATIO, MOST_FREE_BYTES = 200, 1 << 28


class Cut(Exception):
    """The gzip data end before their end: the file is not whole."""


class Damaged(Exception):
    """The gzip data cannot be unpacked; the message has the reason."""


def raw(fd: int) -> Iterator[bytes]:
    """The bytes as they are, in flat memory."""
    offset = 0
    while data := os.pread(fd, AT_ONCE, offset):
        offset += len(data)
        yield data


def is_packed(fd: int) -> bool:
    """By its first bytes: a name may be wrong."""
    return os.pread(fd, len(GZIP), 0) == GZIP


def content(fd: int) -> Iterator[bytes]:
    """The bytes, unpacked if they are gzip, in flat memory. Raises Cut and Damaged."""
    if not is_packed(fd):
        yield from raw(fd)
        return
    most = max(MOST_FREE_BYTES, MOST_RATIO * os.fstat(fd).st_size)
    size = 0
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as unpacked:
            while True:
                try:
                    data = unpacked.read(AT_ONCE)
                except EOFError as error:
                    raise Cut from error
                except (gzip.BadGzipFile, zlib.error) as error:
                    raise Damaged(f"its gzip data are damaged: {error}") from error
                size += len(data)
                if size > most:
                    raise Damaged(f"it unpacks to more than {most} bytes, which no file of sales does")
                if not data:
                    return
                yield data


def sha256_of(fd: int) -> str:
    """SHA-256 of the content, which identifies the file. Raises Cut and Damaged."""
    digest = hashlib.sha256()
    for data in content(fd):
        digest.update(data)
    return digest.hexdigest()
