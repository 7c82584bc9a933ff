"""A dry run: what would become of a file if it were taken now. Nothing is written that stays."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
from psycopg2.extensions import cursor as Cursor

from contracts.settings import CsvSettings, ResultsDbSettings
from sources.csv import reading
from sources.csv.intake import UNKNOWN
from sources.csv.lines import Bad
from sources.csv.plan import plan
from sources.csv.regular import open_regular
from sources.csv.results import Check, Counts, Refusal
from sources.csv.taken import NAMES, Taken, copy_in, upsert
from sources.errors import Refused

# What is shown; the others are counted.
MOST_REFUSALS = 1_000


class Pretended(Taken):
    """The cache as it would be: what the file says is kept beside it, and goes with the connection."""

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
    taken = Pretended(results)
    try:
        return _check(fd, taken, file.name, settings.csv_decimal_comma)
    finally:
        os.close(fd)
        taken.close()


def _check(fd: int, taken: Pretended, name: str, decimal_comma: bool) -> Check:
    try:
        head = reading.head(fd)
    except reading.NoCsv as error:
        return Check(name, Counts(), reason=str(error))
    counts = Counts()
    refusals: list[Refusal] = []
    for part in reading.parts(fd, head, head.body, decimal_comma):
        made = plan(part.good, taken.find(part.good["sale_id"].unique()))
        taken.pretend(made.changed(1))
        bad = sorted(part.bad + [Bad(line, UNKNOWN, b"") for line in made.unknown], key=lambda one: one.line)
        refusals += [
            Refusal(one.line, "; ".join((one.reason, *one.more)))
            for one in bad[: MOST_REFUSALS - len(refusals)]
        ]
        counts += made.counts(part.rows, len(bad))
    return Check(name, counts, tuple(refusals), ignored_columns=head.unknown)
