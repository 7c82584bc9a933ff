"""Change capture over a fresh table and fresh topics, in a thread or a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2.extensions
from pydantic import SecretStr
from sqlalchemy import make_url

from contracts.settings import SalesDbSettings
from contracts.topics import Topic
from kafka_client.errors import Refused
from sources.position_store import PositionStore, SourceOffset
from sources.postgres.capture import Capture
from sources.postgres.writer import Topics
from stack import databases
from stack.embedded import Embedded
from stack.postgres import connect
from tests.support.kafka import committed_records, committed_values
from tests.support.threads import Background
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
# Only a slow machine comes near it: a condition that comes true costs no more than it takes.
DEADLINE_SECONDS = 120.0
_NAMES = ("sale_id", "city", "country", "salesman_id", "salesman_name", "product", "currency")
COLUMNS = "sale_id, sold_at, city, country, salesman_id, salesman_name, product, quantity, amount, currency"
SALE = (
    f"insert into public.sales ({COLUMNS}) "
    "values ('{}', '2026-05-04 03:02:01.000001+00', 'Köln', 'DE', 's1', 'Anna', 'TV', 2, {}, 'EUR')"
)


@dataclass
class Sales:
    """One sales database with capture's topics."""

    stack: Embedded
    settings: SalesDbSettings
    topics: Topics

    def connect(self) -> psycopg2.extensions.connection:
        """A superuser's connection in autocommit mode."""
        return connect(make_url(self.settings.sales_db_url.get_secret_value()))

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def capture(self) -> Capture:
        return Capture(self.stack.kafka, self.settings, self.topics)

    def as_capture_role(self) -> Sales:
        """The same with the role that capture has in the embedded stack."""
        database = make_url(self.settings.sales_db_url.get_secret_value()).database
        assert database is not None
        url = self.stack.postgres(database, databases.CAPTURE).render_as_string(hide_password=False)
        return replace(self, settings=self.settings.model_copy(update={"sales_db_url": SecretStr(url)}))

    def start(self) -> Running:
        """Capture in a thread of this process, whose end is awaited by the test."""
        running = Running(self.capture())
        running.start()
        return running

    @contextmanager
    def capturing(self) -> Iterator[Running]:
        """Capture in a thread of this process, ended in order."""
        running = self.start()
        try:
            yield running
        finally:
            running.stop()

    def process(self, more: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Capture as a process of its own, to be killed."""
        environment = os.environ | {
            "ELECTRORED_KAFKA_BOOTSTRAP": self.stack.kafka.kafka_bootstrap,
            "ELECTRORED_SCHEMA_REGISTRY_URL": self.stack.kafka.schema_registry_url,
            "ELECTRORED_SALES_DB_URL": self.settings.sales_db_url.get_secret_value(),
            "ELECTRORED_SALES_SLOT": self.settings.sales_slot,
            "TEST_TOPICS": ",".join(
                (self.topics.events.name, self.topics.positions.name, self.topics.dead_letters.name)
            ),
            **(more or {}),
        }
        return subprocess.Popen(
            [sys.executable, ROOT / "tests/integration/sources/process.py"],
            cwd=ROOT,
            env=environment,
            **options,
        )

    def wait(self, condition: Callable[[], Any], running: Running | None = None) -> Any:
        """The first true value of the condition; fails when it does not come, or when capture ended."""

        def value() -> Any:
            if running is not None and running.error is not None:
                raise running.error
            return condition()

        return wait_until(value)

    def events(self) -> list[dict[str, Any]]:
        """Every committed event, partition by partition."""
        return [value for _, value in self.log(self.topics.events)]

    def log(self, topic: Topic) -> list[tuple[bytes, Any]]:
        """Keys and records of everything that is committed now."""
        return committed_records(self.stack.kafka, topic)

    def raw_log(self, topic: Topic) -> list[tuple[bytes, bytes | None]]:
        """Keys and values of everything that is committed now."""
        return committed_values(self.stack.kafka, topic)

    def position(self) -> SourceOffset:
        position = self.position_or_none()
        assert position is not None
        return position

    def frontier(self) -> datetime:
        frontier = self.position().frontier
        assert frontier is not None
        return frontier

    def position_or_none(self) -> SourceOffset | None:
        """The newest committed position, read without touching the producer."""
        found = [value for key, value in self.log(self.topics.positions) if key == b"postgres"]
        if not found:
            return None
        _, record = found[-1]
        return SourceOffset(record["next_seq"], record["frontier"], json.loads(record["detail"]))

    def slots(self) -> int:
        """How many slots there are by capture's name."""
        query = f"select count(*) from pg_replication_slots where slot_name = '{self.settings.sales_slot}'"
        return int(self.run(query)[0][0])

    def phase(self) -> str:
        """How far the snapshot is."""
        position = self.position_or_none()
        return "" if position is None else str(position.detail["snapshot"])

    def ranges(self) -> int:
        """How many ranges of a snapshot are in the ledger."""
        found: dict[bytes, bool] = {}
        for key, value in self.raw_log(self.topics.positions):
            if b"/range/" in key:
                found[key] = value is not None
        return sum(found.values())

    def ledger(self) -> PositionStore:
        """A second holder of capture's ledger: opening it fences the first."""
        return PositionStore(
            self.stack.kafka,
            "postgres",
            f"sources.postgres.{self.settings.sales_slot}",
            self.topics.positions,
            self.topics.events,
        )

    def totals_of_log(self) -> dict[tuple[str, ...], tuple[int, int, Decimal]]:
        """Count, quantity and amount by all that is not added up, without what adds up to nothing."""
        totals: dict[tuple[str, ...], list[Any]] = {}
        for event in self.events():
            key = (*(event[name] for name in _NAMES), event["sold_at"])
            total = totals.setdefault(key, [0, 0, Decimal(0)])
            total[0] += 1 if event["operation"] == "SALE" else -1
            total[1] += event["quantity"]
            total[2] += event["amount"]
        return {key: (n, q, a) for key, (n, q, a) in totals.items() if (n, q, a) != (0, 0, 0)}

    def totals_of_table(self) -> dict[tuple[str, ...], tuple[int, int, Decimal]]:
        rows = self.run(f"select {', '.join(_NAMES)}, sold_at, quantity, amount from public.sales")
        return {tuple(row[:-2]): (1, row[-2], row[-1]) for row in rows}

    def is_equal(self) -> bool:
        return self.totals_of_log() == self.totals_of_table()

    def seqs_are_unique(self) -> bool:
        return max(Counter(event["seq"] for event in self.events()).values(), default=1) == 1


class Running(Background):
    """Capture in a thread; what it raised is raised by `stop`."""

    def __init__(self, capture: Capture) -> None:
        self.capture, self._stop = capture, threading.Event()
        super().__init__(lambda: capture.run(self._stop))

    def stop(self) -> None:
        self._stop.set()
        self.join(DEADLINE_SECONDS)


def captured(sales: Sales, running: Running, condition: str = "done") -> None:
    sales.wait(lambda: sales.phase() == condition, running)


def refused(sales: Sales, running: Running) -> str:
    """The line that capture ends with."""
    sales.wait(lambda: not running.is_alive())
    assert isinstance(running.error, Refused)
    line = str(running.error)
    assert "\n" not in line
    return line
