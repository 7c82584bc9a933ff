"""An inbox with its database and topics, and what its files add up to."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import make_url

from contracts.settings import CsvSettings, ResultsDbSettings
from contracts.topics import Topic
from sources.csv.dry_run import check
from sources.csv.ingest import take
from sources.csv.results import Check, Retraction, Taking
from sources.csv.retract import retract
from sources.csv.source import Topics
from sources.position_store import FileRecord, PositionStore, SourceOffset
from stack.embedded import Embedded
from tests.support.kafka import committed_records

# Linux's number for the clock that file times are taken from; Python does not name it.
CLOCK_REALTIME_COARSE = 5
ROOT = Path(__file__).parents[2]
Row = dict[str, str]
_NAMES = ("sale_id", "city", "country", "salesman_id", "salesman_name", "product", "currency")


def row(number: int | str, **changes: str) -> Row:
    """A sound row."""
    return {
        "sale_id": f"sale-{number}", "sold_at": "2026-11-22T10:00:00+00:00", "city": "Köln", "country": "DE",
        "salesman_id": "s1", "salesman_name": "Ada", "product": "TV, 40\"", "quantity": "2", "amount": "19.9900",
        "currency": "EUR",
    } | changes  # fmt: skip


@dataclass
class Desk:
    """One CSV source with everything of its own."""

    stack: Embedded
    results: ResultsDbSettings
    settings: CsvSettings
    topics: Topics

    @property
    def inbox(self) -> Path:
        return self.settings.csv_inbox

    def put(self, name: str, rows: Iterable[Row]) -> Path:
        """Rename a file into place."""
        rows = list(rows)
        hidden = self.inbox / f".{name}"
        with hidden.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        # Within one tick of the kernel's clock a rename leaves no trace.
        while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= hidden.stat().st_mtime_ns:
            pass
        return hidden.rename(self.inbox / name)

    def take(self) -> Taking:
        return take(self.stack.kafka, self.results, self.settings, self.topics)

    def retract(self, file: str) -> Retraction:
        return retract(self.stack.kafka, self.results, self.settings, file, self.topics)

    def check(self, file: Path) -> Check:
        return check(self.results, self.settings, file)

    def process(self, **environment: str) -> subprocess.Popen[bytes]:
        """`take` as a process of its own, to be killed."""
        topics = self.topics
        names = ",".join((topics.events.name, topics.positions.name, topics.dead_letters.name))
        return subprocess.Popen(
            [sys.executable, ROOT / "tests/integration/sources/csv/process.py"],
            cwd=ROOT,
            env=os.environ
            | {
                "ELECTRORED_KAFKA_BOOTSTRAP": self.stack.kafka.kafka_bootstrap,
                "ELECTRORED_SCHEMA_REGISTRY_URL": self.stack.kafka.schema_registry_url,
                "ELECTRORED_RESULTS_DB_URL": self.results.results_db_url.get_secret_value(),
                "ELECTRORED_CSV_INBOX": str(self.inbox),
                "ELECTRORED_CSV_SETTLE_SECONDS": "0",
                "TEST_TOPICS": names,
                **environment,
            },
        )

    def files(self, pattern: str) -> list[str]:
        return sorted(str(path.relative_to(self.inbox)) for path in self.inbox.glob(pattern))

    def log(self, topic: Topic) -> list[tuple[bytes, Any]]:
        """Keys and records of everything that is committed now."""
        return committed_records(self.stack.kafka, topic)

    def events(self) -> list[dict[str, Any]]:
        return [value for _, value in self.log(self.topics.events)]

    def dead_letters(self) -> dict[bytes, Any]:
        """The newest under each key, as compaction leaves them."""
        return dict(self.log(self.topics.dead_letters))

    def positions(self) -> list[dict[str, Any]]:
        """Every position that the source has published, in order."""
        return [record for key, (_, record) in self.log(self.topics.positions) if key == b"csv"]

    def totals(self) -> dict[tuple[Any, ...], tuple[int, int, Decimal]]:
        """Count, quantity and amount by all that is not added up, without what adds up to nothing."""
        totals: dict[tuple[Any, ...], list[Any]] = {}
        for event in self.events():
            key = (*(event[name] for name in _NAMES), event["sold_at"].isoformat())
            total = totals.setdefault(key, [0, 0, Decimal(0)])
            total[0] += 1 if event["operation"] == "SALE" else -1
            total[1] += event["quantity"]
            total[2] += event["amount"]
        return {key: (n, q, a) for key, (n, q, a) in totals.items() if (n, q, a) != (0, 0, 0)}

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        url = make_url(self.results.results_db_url.get_secret_value()).set(drivername="postgresql")
        connection = psycopg2.connect(url.render_as_string(hide_password=False))
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def ledger(self) -> tuple[SourceOffset | None, dict[str, FileRecord]]:
        """The ledger's content; opening it fences its holder."""
        ledger = PositionStore(
            self.stack.kafka, "csv", "sources.csv.test", self.topics.positions, self.topics.events
        )
        ledger.open()
        ledger.close()
        return ledger.position, ledger.files

    def is_sound(self) -> bool:
        """Seqs are dense and ascend in each partition, and the cache equals the log."""
        seqs = [event["seq"] for event in self.events()]
        counting = {key[0] for key in self.totals()}
        cached = {sale_id for (sale_id,) in self.run("select sale_id from csv_sales")}
        ((next_seq,),) = self.run("select next_seq from csv_cache")
        return sorted(seqs) == list(range(1, next_seq)) and counting == cached


def oracle(rows: Iterable[Row]) -> dict[tuple[Any, ...], tuple[int, int, Decimal]]:
    """What counts after all rows, one by one: the last one of each id, unless it takes back."""
    counting: dict[str, Row] = {}
    for one in rows:
        if one.get("operation") == "REVERSAL":
            counting.pop(one["sale_id"], None)
        else:
            counting[one["sale_id"]] = one
    return {
        (*(one[name] for name in _NAMES), one["sold_at"]): (1, int(one["quantity"]), Decimal(one["amount"]))
        for one in counting.values()
    }
