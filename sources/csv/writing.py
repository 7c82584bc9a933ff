"""Write the blocks of a file to the log, one after the other; the next one is read meanwhile."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from sources.csv.changes import Plan
from sources.csv.records import Bad
from sources.csv.source import Source
from sources.position_store import FileRecord


class Writing:
    """At most one transaction under way, in a thread; what it raised is raised by `settle`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(1, "csv")
        self._under_way: Future[None] | None = None

    def start(self, changes: Plan, bad: list[Bad], entry: FileRecord) -> None:
        """Encode here, outside of the transaction; write there."""
        events = self._source.encode(changes, entry.entered_at)
        dead = self._source.dead_letters(entry, bad)
        is_last = entry.state == "DONE"
        self._under_way = self._thread.submit(
            self._source.write, changes, events, dead, entry, is_last=is_last
        )

    def settle(self) -> None:
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def close(self) -> None:
        self._thread.shutdown()
