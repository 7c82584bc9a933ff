"""Ingest the files of the inbox: each is entered in the position store, then written block by block to the log."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any

from contracts.settings import CsvSettings, KafkaSettings, ResultsDbSettings
from kafka_client.errors import Refused
from lineage.emitter import OnProgress, no_progress
from observability import logs
from sources.csv import parse
from sources.csv.changes import Plan, plan
from sources.csv.file_detail import Writers, counts_of, detail, disagreements_of, place_of, spans_of
from sources.csv.inbox import Inbox, Unfinished, Waiting
from sources.csv.judging import judge
from sources.csv.parse import NoCsv, Part
from sources.csv.records import Bad
from sources.csv.regular import Copy, open_regular
from sources.csv.results import PREVIEW_ROWS, Counts, FileResult, Taking
from sources.csv.retract import reverse
from sources.csv.source import Source, Topics
from sources.csv.validate import COLUMNS, EPOCH, MICROSECOND
from sources.csv.writing import Writing
from sources.position_store import FileRecord

_log = logs.get(__name__)

# How often the index stores the offsets that it reflects: so much of the log is read again after a kill.
NOTE_SECONDS = 10.0
UNKNOWN = "column operation: REVERSAL of a sale that no file contains, or that was taken back"


def take(
    kafka: KafkaSettings,
    results: ResultsDbSettings,
    settings: CsvSettings,
    topics: Topics | None = None,
    *,
    on_progress: OnProgress = no_progress,
) -> Taking:
    """Take all that waits and is complete; a file of which a part was taken goes on where it was left.

    `on_progress` is called with what the run has written, after each transaction.
    Raises ElectroRedError when it cannot go on: run it again.
    """
    started = time.monotonic()
    inbox = Inbox(settings.csv_inbox, settings.csv_settle_seconds)
    with inbox.held(), Source(kafka, results, topics or Topics()) as source:
        intake = Intake(inbox, source, settings.csv_decimal_comma, on_progress)
        files = tuple(intake.run())
    return Taking(files, intake.counts, time.monotonic() - started, tuple(intake.preview))


@dataclass
class Intake:
    """One run."""

    inbox: Inbox
    source: Source
    decimal_comma: bool
    on_progress: OnProgress = no_progress
    counts: Counts = field(default_factory=Counts)
    # Of retractions that had been interrupted.
    reversed: Counts = field(default_factory=Counts)
    preview: list[dict[str, Any]] = field(default_factory=list)
    _noted_at: float = field(default_factory=time.monotonic)

    def run(self) -> Iterator[FileResult]:
        """1. finish what a predecessor left  2. put back what was written to since it was taken  3. take the files,
        oldest first  4. release the frontier.
        """
        yield from self._finish_left()
        yield from self._put_back()
        for waiting in self.inbox.waiting():
            if waiting.is_complete:
                result = self._file(waiting)
                _log.info("file", name=result.name, outcome=result.outcome, reason=result.reason or None)
                yield result
        self.source.release()
        self.source.note_ends()

    def _finish_left(self) -> Iterator[FileResult]:
        for entry in sorted(self.source.files.values(), key=lambda one: one.entered_at):
            if entry.state == "TAKING":
                yield self._go_on(entry)
            elif entry.state == "RETRACTING":
                before = self.reversed
                done = reverse(self.source, entry, partial(self._reversed, before))
                reason = f"taking it back had been cut off; {done.taken_back} sales were taken back in all"
                yield FileResult(entry.name, "retracted", entry.sha256, reason)
        for sha256 in self.inbox.copies():
            entered = self.source.files.get(sha256)
            if entered is None:
                # Copied and not yet entered: the file itself is still in the inbox.
                self.inbox.drop(sha256)
            else:
                self._put_away(entered)

    def _put_back(self) -> Iterator[FileResult]:
        for original in self.inbox.written_after():
            reason = "it was written to after it was taken: what it holds now waits in the inbox, and rows count once"
            try:
                self.inbox.put_back(original)
            except OSError as error:
                reason = f"it was written to after it was taken, and cannot be put back: {error.strerror}"
            _log.warning("a file was written to after it was taken", name=original.shown, reason=reason)
            yield FileResult(original.shown, "written_after", original.sha256, reason)
        self.inbox.forget()

    def _reversed(self, before: Counts, counts: Counts) -> None:
        self.reversed = before + counts
        self._report_progress()

    def _report_progress(self) -> None:
        self.on_progress((self.counts + self.reversed).report)

    def _go_on(self, entry: FileRecord) -> FileResult:
        if self.inbox.path_of(entry.sha256).exists():
            return self._rows(entry)
        reason = (
            f"its copy is gone after row {entry.rows}; put the file in once more, what was taken counts once"
        )
        _log.error("a file is lost", name=entry.name, reason=reason)
        self.source.enter(replace(entry, state="LOST"))
        return FileResult(entry.name, "lost", entry.sha256, reason, counts_of(entry))

    def _file(self, waiting: Waiting) -> FileResult:
        try:
            if waiting.problem:
                self.inbox.reject_special(waiting)
                return FileResult(waiting.shown, "rejected", reason=waiting.problem)
            copy = self.inbox.copy(waiting)
        except Unfinished as error:
            return FileResult(waiting.shown, "unfinished", reason=str(error))
        except Refused as error:
            return FileResult(waiting.shown, "refused", reason=str(error))
        if copy is None:
            return FileResult(waiting.shown, "changing", reason="it went or was written to while it was read")
        known = self.source.files.get(copy.sha256)
        # A file of which every row was rejected is tried again: a setting or the version may have changed.
        if known is not None and known.state == "DONE" and not counts_of(known).is_in_vain:
            reason = f"its content was taken as {known.name}"
            try:
                self.inbox.let_go(waiting, copy.sha256)
            except Refused as error:
                self.inbox.drop(copy.sha256)
                return FileResult(waiting.shown, "refused", copy.sha256, f"{reason}, and {error}")
            if known.name == waiting.shown:
                # It is in `processed/` under this name already: put in twice, or a run was killed before `let_go`.
                self.inbox.drop(copy.sha256)
            else:
                self.inbox.finish(copy.sha256, waiting.shown, known.entered_at)
            return FileResult(waiting.shown, "copy", copy.sha256, reason)
        entry = self._enter(waiting, copy, known)
        left = ""
        try:
            self.inbox.let_go(waiting, copy.sha256)
        except Refused as error:
            # It is entered: its rows count, and next time it is a copy.
            left = str(error)
        if entry.state == "REJECTED":
            self._put_away(entry)
            return FileResult(entry.name, "rejected", entry.sha256, entry.detail["reason"])
        return replace(self._rows(entry), reason=left)

    def _enter(self, waiting: Waiting, copy: Copy, known: FileRecord | None) -> FileRecord:
        entry = FileRecord(
            copy.sha256, waiting.shown, copy.size, EPOCH, "TAKING", self.source.next_seq, self.source.next_seq
        )
        try:
            if copy.problem:
                raise NoCsv(copy.problem)
            with self._opened(entry) as fd:
                place = judge(fd, self.decimal_comma).body
        except NoCsv as error:
            entry = replace(entry, state="REJECTED", detail={"reason": str(error)})
        else:
            earlier = spans_of(known) if known is not None and known.state == "LOST" else []
            modified = {"modified": waiting.status.st_mtime_ns}
            kept = modified | ({"earlier": earlier} if earlier else {})
            entry = replace(entry, detail=detail(place, Counts()) | kept)
        entry = replace(entry, entered_at=self.source.hold())
        self.source.enter(entry)
        return entry

    @contextmanager
    def _opened(self, entry: FileRecord) -> Iterator[int]:
        fd = open_regular(self.inbox.path_of(entry.sha256))
        try:
            yield fd
        finally:
            os.close(fd)

    def _rows(self, entry: FileRecord) -> FileResult:
        """Take its rows from the entry's place on; a block is read while the one before it is written."""
        started = time.monotonic()
        with self._opened(entry) as fd, closing(Writing(self.source)) as writing:
            head, place = parse.head(fd), place_of(entry)
            parts = parse.parts(fd, head, place, self.decimal_comma)
            writers = Writers(self.source.files, entry)
            part = next(parts, None)
            while True:
                following = None if part is None else next(parts, None)
                writing.settle()
                self._report_progress()
                changes, bad, counts = self._planned(part)
                self.counts += counts
                end = part.end if part is not None else place
                disagrees = dict(Counter(disagreements_of(entry)) + writers.of(changes.corrected))
                entry = replace(
                    entry,
                    state="TAKING" if following is not None else "DONE",
                    rows=entry.rows + counts.rows,
                    next_seq=self.source.next_seq + changes.events.height,
                    detail={
                        **entry.detail,
                        **detail(end, counts_of(entry) + counts),
                        **({"disagrees": disagrees} if disagrees else {}),
                    },
                )
                writing.start(changes, bad, entry)
                if following is None:
                    break
                part = following
                self._note_sometimes(writing)
            writing.settle()
            self._report_progress()
        self._put_away(entry)
        took = time.monotonic() - started
        if disagrees:
            _log.warning("files of one time disagree about sales", name=entry.name, others=disagrees)
        counts = counts_of(entry)
        return FileResult(entry.name, "taken", entry.sha256, "", counts, took, head.unknown, disagrees)

    def _planned(self, part: Part | None) -> tuple[Plan, list[Bad], Counts]:
        if part is None:
            return plan(parse.NO_ROWS, self.source.index.find(parse.NO_ROWS["sale_id"])), [], Counts()
        part = part.fitting(self.source.most_row_bytes)
        changes = plan(part.good, self.source.index.find(part.good["sale_id"].unique()))
        bad = part.bad + [Bad(line, UNKNOWN, part.raw[line]) for line in changes.unknown]
        if len(self.preview) < PREVIEW_ROWS:
            sold = changes.events.filter(~changes.events["reversal"]).head(PREVIEW_ROWS - len(self.preview))
            self.preview += [_shown(row) for row in sold.select(COLUMNS).iter_rows(named=True)]
        return changes, bad, changes.counts(part.rows, len(bad))

    def _note_sometimes(self, writing: Writing) -> None:
        if time.monotonic() - self._noted_at >= NOTE_SECONDS:
            writing.settle()
            self.source.note_ends()
            self._noted_at = time.monotonic()

    def _put_away(self, entry: FileRecord) -> None:
        """Move the copy to where a file in this state belongs."""
        if entry.state == "DONE":
            self.inbox.finish(entry.sha256, entry.name, entry.entered_at)
        elif entry.state == "REJECTED":
            self.inbox.reject(entry.sha256, entry.name, entry.detail["reason"])
        else:
            self.inbox.drop(entry.sha256)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    sold_at = EPOCH + row["sold_at"] * MICROSECOND
    return row | {"sold_at": sold_at.isoformat(), "amount": str(Decimal(row["amount"]).scaleb(-4))}


def waiting(settings: CsvSettings) -> list[Waiting]:
    """What waits, for a sensor: without a request to Kafka."""
    return Inbox(settings.csv_inbox, settings.csv_settle_seconds).waiting()
