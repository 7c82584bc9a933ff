"""Take a wrong file back: reversals of what it said and still counts."""

from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl

from contracts.settings import CsvSettings, KafkaSettings, ResultsDbSettings
from observability import logs
from sources.csv.inbox import Inbox, open_regular, sha256_of
from sources.csv.intake import counts_of
from sources.csv.plan import Plan
from sources.csv.results import Counts, Retraction
from sources.csv.rows import COLUMNS
from sources.csv.source import Source, Topics
from sources.errors import Refused
from sources.ledger import FileEntry

_log = logs.get(__name__)

# Events of one Kafka transaction: about 50 ms of them.
BATCH = 10_000


def retract(
    kafka: KafkaSettings,
    results: ResultsDbSettings,
    settings: CsvSettings,
    file: str,
    topics: Topics | None = None,
) -> Retraction:
    """Reverse every sale of the file that counts as the file has it; what was corrected since is left.

    `file` is a path to its content, the name that it was taken under, or its hash. Cut off, it may be run again.
    Afterwards the same content may be taken again. Raises Refused for a file that was not taken.
    """
    inbox = Inbox(settings.csv_inbox, settings.csv_settle_seconds)
    with inbox.held(), Source(kafka, results, topics or Topics()) as source:
        entry = _find(source, file)
        if any(other.state == "TAKING" and other != entry for other in source.files.values()):
            raise Refused("another file is half taken: let it be taken whole first, then retract")
        done = _reverse(source, entry)
        inbox.drop(entry.sha256)
        source.release()
        source.note_ends()
    return done


def _find(source: Source, file: str) -> FileEntry:
    """The file's entry: by its content if there is a file of that name, else by the name or hash in the ledger."""
    found = [one for one in source.files.values() if file in (one.sha256, one.name)]
    if Path(file).is_file():
        fd = open_regular(Path(file))
        try:
            sha256 = sha256_of(fd)
        finally:
            os.close(fd)
        found = [one for one in source.files.values() if one.sha256 == sha256]
    counting = [one for one in found if one.state in ("DONE", "TAKING", "LOST")]
    if len(counting) == 1:
        return counting[0]
    if counting:
        hashes = ", ".join(one.sha256 for one in counting)
        raise Refused(f"several files were taken as {file}: name one by its content or its hash, of {hashes}")
    states = ", ".join(sorted({one.state for one in found}))
    raise Refused(f"{file} is not among the files that were taken{f'; it is {states}' if states else ''}")


def _reverse(source: Source, entry: FileEntry) -> Retraction:
    recorded_at = source.hold()
    first = entry.first_seq
    while True:
        rows = source.taken.made_by(first, entry.next_seq, BATCH)
        is_last = rows.height < BATCH
        made = Plan(rows.select(*COLUMNS, pl.lit(True).alias("reversal")), 0, 0, 0, rows.height, [])
        so_far = Counts(**entry.detail.get("retracted", {})) + Counts(
            reversals=rows.height, amount=made.amounts()
        )
        retracted = {"reversals": so_far.reversals, "amount": dict(so_far.amount)}
        entry = replace(
            entry,
            state="RETRACTED" if is_last else entry.state,
            detail={**entry.detail, "retracted": retracted},
        )
        source.write(made, source.encode(made, recorded_at), [], entry, is_last=is_last)
        if is_last:
            break
        first = int(rows["seq"][-1]) + 1
    taken_back = so_far.reversals
    _log.info("retracted", name=entry.name, taken_back=taken_back)
    amount: dict[str, Decimal] = so_far.amounts
    return Retraction(entry.name, entry.sha256, taken_back, counts_of(entry).accepted - taken_back, amount)
