"""Retract a wrong file: reversals of its sales that still count."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from contracts.settings import CsvSettings, KafkaSettings, ResultsDbSettings
from kafka_client.errors import Refused
from lineage.emitter import OnProgress, no_progress
from observability import logs
from sources.csv.changes import Plan
from sources.csv.content import Cut, Damaged, sha256_of
from sources.csv.file_detail import spans_of
from sources.csv.inbox import Inbox
from sources.csv.regular import open_regular
from sources.csv.results import Counts, Retraction
from sources.csv.sale_index import STORED_SCHEMA
from sources.csv.source import Source, Topics
from sources.csv.validate import COLUMNS
from sources.position_store import FileRecord

_log = logs.get(__name__)

# Events of one Kafka transaction: about 50 ms of them.
BATCH = 10_000


def retract(
    kafka: KafkaSettings,
    results: ResultsDbSettings,
    settings: CsvSettings,
    file: str,
    topics: Topics | None = None,
    *,
    on_progress: OnProgress = no_progress,
) -> Retraction:
    """Reverse every sale of the file that counts as the file has it; what was corrected since is left.

    `file` is a path to its content, the name that it was taken under, or its hash. Interrupted, it is finished by the
    next run that takes files, or by a repetition; the frontier is held until then.
    Afterwards the same content may be taken again. `on_progress` is called after each transaction.
    Raises Refused for a file that was not taken.
    """
    inbox = Inbox(settings.csv_inbox, settings.csv_settle_seconds)
    with inbox.held(), Source(kafka, results, topics or Topics()) as source:
        entry = _find(source, file)
        half_done = (other for other in source.files.values() if other.state in ("TAKING", "RETRACTING"))
        if any(other.sha256 != entry.sha256 for other in half_done):
            raise Refused(
                "another file is half taken, or half taken back: run `take` to finish it, then retract"
            )
        done = reverse(source, entry, lambda counts: on_progress(counts.report))
        inbox.drop(entry.sha256)
        # The file was wrong: a late write to its original must not bring it back.
        inbox.forget(entry.sha256)
        source.release()
        source.note_ends()
    return done


def _find(source: Source, file: str) -> FileRecord:
    """The file's entry: by its content if there is a file of that name, else by the stored name or hash."""
    entries = [one for one in source.files.values() if file in (one.sha256, one.name)]
    if Path(file).is_file():
        fd = open_regular(Path(file))
        try:
            sha256 = sha256_of(fd)
        except (Cut, Damaged) as error:
            raise Refused(f"{file} cannot be unpacked, so its content is not known") from error
        finally:
            os.close(fd)
        entries = [one for one in source.files.values() if one.sha256 == sha256]
    counting = [one for one in entries if one.state in ("DONE", "TAKING", "LOST", "RETRACTING")]
    if len(counting) == 1:
        return counting[0]
    if counting:
        hashes = ", ".join(one.sha256 for one in counting)
        raise Refused(f"several files were taken as {file}: name one by its content or its hash, of {hashes}")
    states = ", ".join(sorted({one.state for one in entries}))
    raise Refused(f"{file} is not among the files that were taken{f'; it is {states}' if states else ''}")


def reverse(
    source: Source, entry: FileRecord, written: Callable[[Counts], None] = lambda _: None
) -> Retraction:
    """Reverse the sales of the file that still count; resumes where it was interrupted.

    The first of several transactions writes RETRACTING, so that after a kill the next run finishes it before it
    releases the frontier. `written` is called with what this run has reversed, after each of them.
    """
    by_this_run = Counts()
    recorded_at = source.hold()
    batches = _batches(source, entry)
    rows = next(batches, pl.DataFrame(schema=STORED_SCHEMA))
    while True:
        following = next(batches, None)
        changes = Plan(rows.select(*COLUMNS, pl.lit(True).alias("reversal")), 0, 0, 0, rows.height, [])
        counts = Counts(reversals=rows.height, amount=changes.amounts())
        so_far = Counts(**entry.detail.get("retracted", {})) + counts
        retracted = {"reversals": so_far.reversals, "amount": dict(so_far.amount)}
        entry = replace(
            entry,
            state="RETRACTED" if following is None else "RETRACTING",
            detail={**entry.detail, "retracted": retracted},
        )
        source.write(changes, source.encode(changes, recorded_at), [], entry, is_last=following is None)
        by_this_run += counts
        written(by_this_run)
        if following is None:
            break
        rows = following
    taken_back = so_far.reversals
    accepted = sum(count for _, _, count in spans_of(entry))
    _log.info("retracted", name=entry.name, taken_back=taken_back)
    return Retraction(entry.name, entry.sha256, taken_back, accepted - taken_back, so_far.amounts)


def _batches(source: Source, entry: FileRecord) -> Iterator[pl.DataFrame]:
    """The sales of the file that count, by seq, BATCH rows at a time."""
    for first, behind, _ in spans_of(entry):
        while (rows := source.index.made_by(first, behind, BATCH)).height:
            yield rows
            first = int(rows["seq"][-1]) + 1
