"""What the ledger keeps of files: which of them made an event, where the order of two is not known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sources.csv.file_detail import Writers
from sources.position_store import FileRecord

AT = datetime(2026, 11, 22, tzinfo=UTC)
SECOND = 1_000_000_000


def entry(name: str, seqs: tuple[int, int], modified: int | None, **detail: Any) -> FileRecord:
    kept = detail | ({} if modified is None else {"modified": modified})
    return FileRecord(name * 8, name, 1, AT, "DONE", *seqs, 1, kept)


def test_row_14_files_of_about_one_time_are_known_by_their_events() -> None:
    files = {
        one.sha256: one
        for one in (
            entry("a", (1, 10), 100 * SECOND),
            entry("b", (10, 20), 102 * SECOND, earlier=[(30, 40, 10)]),
            entry("c", (20, 30), 103 * SECOND + 1),
            entry("old", (40, 50), None),
        )
    }
    new = entry("new", (50, 50), 101 * SECOND)
    writers = Writers({**files, new.sha256: new}, new)
    assert writers.of([1, 9, 10, 19, 20, 35, 45, 50, 0]) == {"a": 2, "b": 3}
    assert writers.of([]) == {}
    assert Writers(files, entry("old too", (50, 50), None)).of([1, 10, 40]) == {}
