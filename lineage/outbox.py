"""Undelivered events and open runs of a machine's processes, as rows of one SQLite database in their folder.

An event is a row from `put` until it is delivered, so those of a killed process are delivered by another one. A process
that is alone under its name locks a file, which the system releases however the process ends; the next one of the name
inherits the rows or, if none starts, any other.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

FILE = "outbox.sqlite3"
# Of a process and backend: more than three days of a run that emits once a minute, about 200 MB at 40 kB each. Without
# a limit a backend that is gone would fill the disk.
MOST_EVENTS = 5_000
# A write takes milliseconds; other processes wait for it.
BUSY_SECONDS = 15.0
# A check for a dead process holds its lock for some milliseconds; the process itself waits for that.
HELD_SECONDS = 5.0
DRAFT_SECONDS = 3600.0

# With a write-ahead log a commit waits for no disk, and a killed process leaves the database whole.
_SETUP = """
    PRAGMA auto_vacuum = FULL;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS lanes (process TEXT, lane TEXT, PRIMARY KEY (process, lane));
    CREATE TABLE IF NOT EXISTS events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, process TEXT, lane TEXT, state TEXT, event TEXT
    );
    CREATE INDEX IF NOT EXISTS events_by_lane ON events (process, lane);
    CREATE TABLE IF NOT EXISTS open_runs (run_id TEXT PRIMARY KEY, process TEXT, job TEXT, parent TEXT);
"""
_OF_LANE = "FROM events WHERE process = ? AND lane = ?"


@dataclass(frozen=True)
class OpenRun:
    """A run that has begun."""

    run_id: str
    job: str
    parent: str | None = None


class Outbox:
    """The rows of a process, in a temporary file without a folder; thread-safe. Each statement is a transaction.

    Processes of one name share their rows, and one of them delivers. With `is_alone` it also inherits.
    """

    def __init__(self, folder: Path | None, process: str, *, is_alone: bool = True) -> None:
        self._folder, self._process, self._is_alone = folder, process, is_alone
        self._begun: set[str] = set()
        # Runs of dead processes that were not ended yet, and whether those of this name are among them.
        self._left: dict[str, OpenRun] = {}
        self._has_own = False
        self._executing, self._locking = threading.Lock(), threading.Lock()
        self._lock: FileLock | None = None
        if folder is None:
            # A temporary file of SQLite's.
            self._db = _connected("")
        else:
            if not (folder / FILE).exists():
                _create(folder)
            self._db = _connected(folder / FILE)
            name = process if is_alone else f"{process}.shared"
            self._lock = FileLock(folder / f"{name}.lock", thread_local=False)

    def add_lane(self, lane: str) -> None:
        self._execute("INSERT OR IGNORE INTO lanes VALUES (?, ?)", self._process, lane)

    def put(self, lane: str, state: str, event: str) -> int:
        """Store the event behind the earlier ones; returns how many were dropped, since too many wait."""
        values = (self._process, lane, state, event)
        self._execute("INSERT INTO events (process, lane, state, event) VALUES (?, ?, ?, ?)", *values)
        if (excess := self.waiting(lane) - MOST_EVENTS) <= 0:
            return 0
        # A later RUNNING event repeats an earlier one; START and the end are not repeated.
        dropped = f"SELECT id {_OF_LANE} ORDER BY state <> 'RUNNING', id LIMIT ?"
        statement = f"DELETE FROM events WHERE id IN ({dropped}) RETURNING id"
        return len(self._execute(statement, self._process, lane, excess))

    def first(self, lane: str, *, but: Sequence[int] = ()) -> tuple[int, str] | None:
        """The oldest event but those, with its id; None if none waits, or another process of the name delivers."""
        if not self._has_lock():
            return None
        events = self._execute(
            f"SELECT id, event {_OF_LANE} AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT 1",
            self._process,
            lane,
            json.dumps(but),
        )
        return events[0] if events else None

    def remove(self, ids: Sequence[int]) -> None:
        self._execute("DELETE FROM events WHERE id IN (SELECT value FROM json_each(?))", json.dumps(ids))

    def waiting(self, lane: str) -> int:
        ((count,),) = self._execute(f"SELECT count(*) {_OF_LANE}", self._process, lane)
        return int(count)

    def begin(self, run: OpenRun) -> None:
        self._begun.add(run.run_id)
        values = (run.run_id, self._process, run.job, run.parent)
        self._execute("INSERT OR REPLACE INTO open_runs VALUES (?, ?, ?, ?)", *values)

    def end(self, run_id: str) -> None:
        self._execute("DELETE FROM open_runs WHERE run_id = ?", run_id)
        self._begun.discard(run_id)
        self._left.pop(run_id, None)

    def open_runs(self) -> list[OpenRun]:
        rows = "SELECT run_id, job, parent FROM open_runs WHERE process = ? ORDER BY rowid"
        return [OpenRun(*row) for row in self._execute(rows, self._process)]

    def inherit(self, *, of_others: bool) -> list[OpenRun]:
        """The runs that dead processes left open and that were not ended yet, with those of other names if asked to.

        Their rows become this process's. Those of this name are read once: later ones are of a process that lives.
        """
        if self._folder is None or not (self._is_alone and self._has_lock(HELD_SECONDS)):
            return []
        if not self._has_own:
            self._left |= {run.run_id: run for run in self.open_runs() if run.run_id not in self._begun}
            self._has_own = True
        names = "SELECT process FROM events UNION SELECT process FROM open_runs"
        for (name,) in self._execute(names) if of_others else ():
            file = self._folder / f"{name}.lock"
            # Processes that share a name have no such file: one that is dead leaves its rows to the others.
            if name != self._process and file.exists():
                with suppress(Timeout), FileLock(file, timeout=0):
                    of_lanes = "AND lane IN (SELECT lane FROM lanes WHERE process = ?1)"
                    moved = "SET process = ?1 WHERE process = ?2"
                    self._execute(f"UPDATE events {moved} {of_lanes}", self._process, name)
                    runs = f"UPDATE open_runs {moved} RETURNING run_id, job, parent"
                    left = (OpenRun(*row) for row in self._execute(runs, self._process, name))
                    self._left |= {run.run_id: run for run in left}
        return list(self._left.values())

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.release()

    def _execute(self, statement: str, *values: object) -> list[Any]:
        # One at a time: a write fails at once while a read of another thread holds an older state of the database.
        with self._executing:
            return self._db.execute(statement, values).fetchall()

    def _has_lock(self, wait_seconds: float = 0.0) -> bool:
        """Whether this process has its name's lock, from the first time that no other one has it."""
        if self._lock is None:
            return True
        with self._locking:
            if not self._lock.is_locked:
                with suppress(Timeout):
                    self._lock.acquire(timeout=wait_seconds)
            return self._lock.is_locked


def waiting(folder: Path) -> Iterator[tuple[str, str, int]]:
    """How many events wait, by process and lane. Writes nothing: the folder may be mounted read-only."""
    file = (folder / FILE).absolute()
    if not file.exists():
        return
    # The last process that closes the database removes its log, which a reader would have to create.
    mode = "mode=ro" if file.with_name(f"{FILE}-wal").exists() else "immutable=1"
    with closing(sqlite3.connect(f"{file.as_uri()}?{mode}", uri=True)) as db:
        yield from db.execute(
            "SELECT process, lane, count(id) FROM lanes LEFT JOIN events USING (process, lane) GROUP BY 1, 2"
        )


def _create(folder: Path) -> None:
    """Several processes may do so at once; none, and no reader, sees half of a database."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("draft-*"):
        # Of a process that was killed here; another one's is seconds old.
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > DRAFT_SECONDS:
                left.unlink()
    draft = folder / f"draft-{uuid4()}.sqlite3"
    _connected(draft).close()
    # Unlike a rename, a link does not replace a file that another process has just created.
    with suppress(FileExistsError):
        os.link(draft, folder / FILE)
    draft.unlink()


def _connected(file: Path | str) -> sqlite3.Connection:
    db = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db.executescript(_SETUP)
    return db
