"""When a run ingests the files of the inbox, and how the inbox is shown. Only `look` does I/O; time is passed in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from contracts import datasets
from contracts.inbox import PATTERN, listing
from contracts.settings import CsvSettings
from electrored_dagster.asset_specs import key
from sources.csv.inbox import Inbox, Waiting
from sources.csv.wholeness import UNENDED_SECONDS

CHECK = "oldest_waiting_file"
NAMES_CHECK = "names_recognised"
# So many names and reasons are shown, the rest is counted.
MOST_SHOWN = 20
# While all is well a file waits for a minute at most, one without a last line end for that long, and those behind a
# very large one for some. The alert CsvFileWaits comes no sooner.
OLD = timedelta(seconds=UNENDED_SECONDS) + timedelta(minutes=5)
# The slowest it gets while runs fail or change nothing: 30 s, doubled five times, are 16 minutes.
MOST_DOUBLINGS = 5
_CUT_OFF = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass(frozen=True)
class InboxSnapshot:
    """A snapshot of the inbox. `left`: mtimes of the copies that an interrupted run left.

    `written_after`: files that were ingested and written to since. `unrecognised`: names that no run ingests.
    """

    waiting: tuple[Waiting, ...] = ()
    copies: tuple[str, ...] = ()
    left: tuple[float, ...] = ()
    written_after: tuple[str, ...] = ()
    unrecognised: tuple[str, ...] = ()

    @property
    def complete(self) -> tuple[Waiting, ...]:
        return tuple(one for one in self.waiting if one.is_complete)

    @property
    def is_empty(self) -> bool:
        """Whether a run would have nothing to ingest now."""
        return not self.complete and not self.copies and not self.written_after

    @property
    def unfinished(self) -> str:
        """The incomplete files, each with the reason."""
        return _some([f"{one.shown}: {one.unfinished}" for one in self.waiting if one.unfinished])

    @property
    def unrecognised_digest(self) -> str:
        """A digest of the unrecognised names; empty without any."""
        names = b"/".join(os.fsencode(name) for name in self.unrecognised)
        return hashlib.sha256(names).hexdigest() if names else ""

    @property
    def fingerprint(self) -> str:
        """A digest of the files, by inode, size and ctime."""
        digest = hashlib.sha256()
        for one in self.complete:
            status = one.status
            digest.update(os.fsencode(one.name))
            digest.update(f"/{status.st_ino}/{status.st_size}/{status.st_ctime_ns}/".encode())
        for copy in sorted((*self.copies, *self.written_after)):
            digest.update(copy.encode())
        return digest.hexdigest()

    def oldest_age(self, now: datetime) -> timedelta:
        """How long the oldest file has been waiting, half ingested ones included; 0 without any."""
        since = [one.since for one in self.waiting] + list(self.left)
        return max(timedelta(), now - datetime.fromtimestamp(min(since), UTC)) if since else timedelta()

    def is_old(self, runs: Runs, now: datetime) -> bool:
        """Whether a file waits for too long; a half ingested one does not while a run is busy."""
        inbox = replace(self, left=()) if runs.is_busy else self
        return inbox.oldest_age(now) > OLD

    def check(self, now: datetime) -> dg.AssetCheckResult:
        age = self.oldest_age(now)
        return dg.AssetCheckResult(
            asset_key=key(datasets.CSV_SALES),
            check_name=CHECK,
            passed=age <= OLD,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"the oldest file has been waiting for {round(age.total_seconds())} s"
            + (f"; not whole yet: {self.unfinished}" if self.unfinished else ""),
            metadata={
                "seconds": age.total_seconds(),
                "waiting": len(self.waiting),
                "half_taken": len(self.left),
            },
        )

    def names_check(self) -> dg.AssetCheckResult:
        shown = _some([_text(name) for name in self.unrecognised])
        return dg.AssetCheckResult(
            asset_key=key(datasets.CSV_SALES),
            check_name=NAMES_CHECK,
            passed=not self.unrecognised,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"not recognised, and never taken under these names: {shown}; the inbox takes {PATTERN}"
            if self.unrecognised
            else f"every name is one of {PATTERN}",
            metadata={"unrecognised": len(self.unrecognised)},
        )

    def observation(self, now: datetime) -> dg.AssetObservation:
        return dg.AssetObservation(
            key(datasets.CSV_INBOX),
            metadata={
                "waiting": len(self.waiting),
                "complete": len(self.complete),
                "unfinished": self.unfinished,
                "written_after": len(self.written_after),
                "unrecognised": len(self.unrecognised),
                "half_taken": len(self.copies),
                "bytes": sum(one.status.st_size for one in self.waiting),
                "oldest_seconds": self.oldest_age(now).total_seconds(),
            },
        )


def _some(shown: Sequence[str]) -> str:
    more = len(shown) - MOST_SHOWN
    return "; ".join(shown[:MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _text(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")


def look(settings: CsvSettings) -> InboxSnapshot:
    """A snapshot; a settled file is opened to check how it ends, none is read."""
    inbox = Inbox(settings.csv_inbox, settings.csv_settle_seconds)
    copies = {}
    for sha256 in inbox.copies():
        try:
            copies[sha256] = inbox.path_of(sha256).stat().st_mtime
        except FileNotFoundError:
            # A run has just put it away.
            continue
    try:
        unrecognised = listing(settings.csv_inbox).unrecognised
    except FileNotFoundError:
        unrecognised = ()
    written_after = tuple(original.sha256 for original in inbox.written_after())
    return InboxSnapshot(
        tuple(inbox.waiting()), tuple(copies), tuple(copies.values()), written_after, unrecognised
    )


@dataclass(frozen=True)
class Runs:
    """The last ingestion runs: whether one is unfinished, when the newest was created, how many failed in a row.

    `is_owed`: the newest run, a retraction included, failed or was cancelled. It may have left the frontier held, for
    example by a file whose copy is gone, which no look at the inbox shows.
    """

    is_busy: bool = False
    newest_at: datetime | None = None
    failures: int = 0
    is_owed: bool = False

    @classmethod
    def of(cls, records: Sequence[dg.RunRecord], retractions: Sequence[dg.RunRecord] = ()) -> Runs:
        """From the records of the jobs, the newest first."""
        newest = max((*records[:1], *retractions[:1]), key=lambda one: one.create_timestamp, default=None)
        is_owed = newest is not None and newest.dagster_run.status in _CUT_OFF
        if not records:
            return cls(is_owed=is_owed)
        statuses = [record.dagster_run.status for record in records]
        failures = next(
            (n for n, status in enumerate(statuses) if status != dg.DagsterRunStatus.FAILURE), len(statuses)
        )
        is_busy = statuses[0] not in FINISHED_STATUSES
        return cls(is_busy, records[0].create_timestamp, failures, is_owed)


@dataclass(frozen=True)
class Memory:
    """The sensor's cursor: the files it last requested a run for, how often, and the checks' last outcomes."""

    asked: str = ""
    times: int = 0
    is_old: bool = False
    unrecognised: str = ""

    @classmethod
    def of(cls, cursor: str | None) -> Memory:
        return cls(**json.loads(cursor)) if cursor else cls()

    @property
    def cursor(self) -> str:
        return json.dumps(asdict(self))

    def reported(self, is_old: bool, unrecognised: str) -> Memory:
        """After the checks' new outcomes were reported."""
        return replace(self, is_old=is_old, unrecognised=unrecognised)

    def requested(self, inbox: InboxSnapshot) -> Memory:
        """After a run was requested."""
        times = self.times + 1 if inbox.fingerprint == self.asked else 1
        return replace(self, asked=inbox.fingerprint, times=times)


def reason_to_wait(
    inbox: InboxSnapshot, runs: Runs, memory: Memory, every: timedelta, now: datetime
) -> str | None:
    """Why no run is requested now; None if one is.

    The first after a quiet time at once, the next `every` after the one before. The interval doubles for each run that
    failed or left the same files in place: a run costs 5 CPU-seconds.
    """
    if inbox.is_empty and not runs.is_owed:
        return f"files are not complete yet: {inbox.unfinished}" if inbox.waiting else "nothing waits"
    if runs.is_busy:
        return "a run is on its way"
    if runs.newest_at is None:
        return None
    in_vain = max(runs.failures, memory.times if inbox.fingerprint == memory.asked else 0)
    due_at = runs.newest_at + every * 2 ** min(in_vain, MOST_DOUBLINGS)
    if now >= due_at:
        return None
    after = f" after {in_vain} in vain" if in_vain else ""
    return f"the next run is due at {due_at:%H:%M:%S} UTC{after}"
