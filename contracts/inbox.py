"""Which names in the inbox are files of sales: one rule for ingestion, metrics, checks and simulators."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# How the rule is shown to people.
PATTERN = "sales_*.csv or sales_*.csv.gz"
# In capitals too: programs on Windows write SALES_1.CSV.
_FILE = re.compile(r"sales_.*\.csv(?:\.gz)?", re.IGNORECASE | re.DOTALL)
_LIKE_FILE = re.compile(r".*\.csv(?:\.gz)?", re.IGNORECASE | re.DOTALL)
# Temporary names: a file before its rename, or a backup beside an edited one.
_TEMPORARY = re.compile(
    r"[.~#].*|.*(?:~|\.(?:part|partial|filepart|crdownload|download|tmp|temp|swp|swo|swx|lock|bak|writing))",
    re.IGNORECASE | re.DOTALL,
)
# An older one was left by a program that failed: its file is missing, and it is reported.
TEMPORARY_SECONDS = 86_400
# Our own folders, and names that systems and people leave in any folder.
OWN_FOLDERS = frozenset((".taking", "processed", "rejected"))
_LITTER = frozenset(
    (".ds_store", "thumbs.db", "desktop.ini", ".directory", "lost+found", "readme", "readme.txt", "readme.md")
)
# A folder may hold a large foreign tree: limit of visited entries.
_MOST_ENTRIES = 10_000


@dataclass(frozen=True)
class Listing:
    """Names in the inbox: files of sales, and names that are never taken."""

    files: tuple[str, ...] = ()
    unrecognised: tuple[str, ...] = ()


def is_sales_file(name: str) -> bool:
    """Whether a file of this name in the inbox is taken."""
    return _FILE.fullmatch(name) is not None


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts numbers in names as numbers: sales_9.csv before sales_10.csv."""
    # ASCII digits: \d matches any script's, and int() refuses some of those.
    pieces = re.findall(r"([^0-9]*)([0-9]*)", name.casefold())
    # A number has as many digits as a name may have, 255: compared by Python, exactly.
    return tuple((text, int(digits or -1)) for text, digits in pieces)


def unrecognised_reason(name: str) -> str:
    """The message about a name that is never taken, with the remedy."""
    return f"{name} is not recognised: the inbox takes {PATTERN}, and nothing in folders below it; rename it"


def listing(folder: Path) -> Listing:
    """The names in the inbox; opens no file. Raises FileNotFoundError without the folder."""
    files: list[str] = []
    unrecognised: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _FILE.fullmatch(entry.name):
                files.append(entry.name)
            elif entry.name in OWN_FOLDERS or entry.name.lower() in _LITTER:
                continue
            elif entry.is_dir(follow_symlinks=False):
                unrecognised += [] if entry.name.startswith(".") else _below(folder, entry.name)
            elif not _TEMPORARY.fullmatch(entry.name) or _is_left(entry):
                unrecognised.append(entry.name)
    return Listing(tuple(files), tuple(sorted(unrecognised, key=natural)))


def _is_left(entry: os.DirEntry[str]) -> bool:
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_ctime > TEMPORARY_SECONDS
    except FileNotFoundError:
        return False


def _below(folder: Path, name: str) -> Iterator[str]:
    """Names like files of sales in a folder below; without any, it may be where files are written."""
    seen = 0
    for path, folders, names in os.walk(folder / name):
        folders[:] = [one for one in folders if not one.startswith(".")]
        seen += len(names) + 1
        if seen > _MOST_ENTRIES:
            return
        yield from (str((Path(path) / one).relative_to(folder)) for one in names if _LIKE_FILE.fullmatch(one))
