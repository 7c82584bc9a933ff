"""A dry run: what would become of a file if it were taken now. Nothing persistent is written."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
from psycopg2.extensions import cursor as Cursor

from contracts.inbox import OWN_FOLDERS, is_sales_file, unrecognised_reason
from contracts.settings import CsvSettings, ResultsDbSettings
from kafka_client.errors import Refused
from sources.csv import parse, wholeness
from sources.csv.changes import plan
from sources.csv.content import Cut, Damaged, content
from sources.csv.ingest import UNKNOWN
from sources.csv.judging import judge, kind_of
from sources.csv.parse import NoCsv
from sources.csv.records import Bad
from sources.csv.regular import open_regular
from sources.csv.results import Check, Counts, Refusal
from sources.csv.sale_index import NAMES, SaleIndex, copy_in, upsert

# What is shown; the others are counted.
MOST_REFUSALS = 1_000


class Pretended(SaleIndex):
    """The index as it would be: the file's sales are in a temporary table beside it."""

    def __init__(self, settings: ResultsDbSettings) -> None:
        super().__init__(settings)
        with self.transaction() as cursor:
            cursor.execute("CREATE TEMP TABLE csv_pretended (LIKE csv_sales INCLUDING ALL)")

    def _select(self, cursor: Cursor) -> None:
        cursor.execute(
            f"SELECT {NAMES} FROM csv_pretended JOIN csv_wanted USING (sale_id) WHERE seq > 0 UNION ALL "
            f"SELECT {NAMES} FROM csv_sales s JOIN csv_wanted USING (sale_id) "
            "WHERE NOT EXISTS (SELECT FROM csv_pretended p WHERE p.sale_id = s.sale_id)"
        )

    def pretend(self, changed: pl.DataFrame) -> None:
        with self.transaction() as cursor:
            copy_in(cursor, "csv_changed", changed)
            cursor.execute(upsert("csv_pretended"))


def check(results: ResultsDbSettings, settings: CsvSettings, file: Path) -> Check:
    """Read the whole file as `take` would. Raises Refused for what is no regular file."""
    try:
        fd = open_regular(file)
    except FileNotFoundError:
        raise Refused(f"there is no file {file}") from None
    index = Pretended(results)
    try:
        result = _check(fd, index, file.name, settings.csv_decimal_comma)
        age = time.time() - os.fstat(fd).st_ctime
        unfinished = wholeness.unfinished(fd, age, wholeness.Processes())
    finally:
        os.close(fd)
        index.close()
    return replace(result, unrecognised=_unrecognised(file, settings.csv_inbox), unfinished=unfinished)


def _unrecognised(file: Path, inbox: Path) -> str:
    """Why the inbox would not recognise it by its name or place; empty if it would."""
    place, inbox = file.resolve().parent, inbox.resolve()
    is_below = inbox in place.parents and place.relative_to(inbox).parts[0] not in OWN_FOLDERS
    return unrecognised_reason(file.name) if is_below or not is_sales_file(file.name) else ""


@contextmanager
def _unpacked(fd: int) -> Iterator[int]:
    """The content as a file. Raises NoCsv if it cannot be unpacked."""
    with tempfile.TemporaryFile() as file:
        try:
            for data in content(fd):
                file.write(data)
        except Cut:
            raise NoCsv("its gzip data are cut off") from None
        except Damaged as error:
            raise NoCsv(str(error)) from error
        file.flush()
        yield file.fileno()


def _check(packed: int, index: Pretended, name: str, decimal_comma: bool) -> Check:
    counts = Counts()
    refusals: list[Refusal] = []
    reasons: Counter[str] = Counter()
    try:
        with _unpacked(packed) as fd:
            head = judge(fd, decimal_comma)
            for part in parse.parts(fd, head, head.body, decimal_comma):
                changes = plan(part.good, index.find(part.good["sale_id"].unique()))
                index.pretend(changes.changed(1))
                bad = sorted(
                    part.bad + [Bad(line, UNKNOWN, b"") for line in changes.unknown], key=lambda one: one.line
                )
                reasons.update(kind_of(one.reason) for one in bad)
                refusals += [
                    Refusal(one.line, "; ".join((one.reason, *one.more)))
                    for one in bad[: MOST_REFUSALS - len(refusals)]
                ]
                counts += changes.counts(part.rows, len(bad))
    except NoCsv as error:
        return Check(name, Counts(), reason=str(error))
    return Check(name, counts, tuple(refusals), ignored_columns=head.unknown, reasons=reasons)
