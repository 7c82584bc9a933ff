"""Rows a second that the sink brings from a state topic into PostgreSQL: all new, then all of them changed.

The topic is filled before the sink looks at it, so it goes as fast as it can; the server is on the same machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import psutil
import typer
from confluent_kafka import Producer
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from benchmarks.figures import Figure
from benchmarks.replay import NAME, ROOT, prepared
from benchmarks.servers import environment, servers
from contracts.settings import KafkaSettings, LogSettings
from kafka_client import clients as connect
from kafka_client.registry import Registry
from observability import logs
from streaming.engine.pipeline import Parameters
from streaming.generations import catalog
from streaming.pipelines import CURRENT, PIPELINES

PRELOAD_TRANSACTION = 20_000
CITIES = 2_000
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Run:
    """`kind` is what happened to the rows."""

    kind: str
    seconds: float
    cpu_seconds: float
    server_cpu_seconds: float
    rows: float


def figures(rows: int = 200_000) -> list[Figure]:
    """Both, on servers of their own."""
    measured = []
    for run in _runs(rows):
        measured.append(Figure(f"sink, rows {run.kind}", run.rows / run.seconds, "rows/s"))
        measured.append(Figure(f"sink, rows {run.kind}, per CPU-second", run.rows / run.cpu_seconds, "rows"))
        measured.append(
            Figure(f"PostgreSQL, rows {run.kind}, per CPU-second", run.rows / run.server_cpu_seconds, "rows")
        )
    return measured


def _runs(rows: int) -> Iterator[Run]:
    with servers() as stack:
        url = prepared(stack)
        server = psutil.Process(stack.processes["postgres"].pid)
        engine = create_engine(url, poolclass=NullPool)
        parameters = Parameters("UTC", timedelta(hours=1), "1-day")
        pipeline = PIPELINES[NAME, CURRENT[NAME]]
        generation = catalog.create(
            stack.kafka, engine, pipeline, parameters, reason="bench", created_by="bench"
        )
        for kind, round_number in (("new", 1), ("changed", 2)):
            _fill(stack.kafka, generation, rows, round_number)
            yield _sunk(stack.kafka, engine, url, server, kind, rows)


def _fill(kafka: KafkaSettings, generation: catalog.Generation, rows: int, round_number: int) -> None:
    """A total of each group, as merge would write them."""
    topic = generation.names.state
    codec = Registry(kafka).codec(
        topic.subject, PIPELINES[generation.pipeline, generation.version].state_schema()
    )
    producer: Producer = connect.transactional_producer(kafka, f"fill-{round_number}")
    producer.init_transactions(30)
    for begin in range(0, rows, PRELOAD_TRANSACTION):
        values = []
        for number in range(begin, min(begin + PRELOAD_TRANSACTION, rows)):
            start = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number // CITIES)
            record = {
                "window_start": start,
                "window_end": start + timedelta(days=1),
                "country": "DE",
                "city": f"City {number % CITIES}",
                "currency": "EUR",
                "total": Decimal(number * round_number),
                "sales_count": round_number,
                "late_count": 0,
                "late_amount": Decimal(0),
                "restated_at": None,
            }
            key = f"{start:%Y-%m-%d}|{record['city']}".encode()
            values.append((key, codec.encode(("electrored.Total", record))))
        producer.begin_transaction()
        for key, value in values:
            producer.produce(topic.name, value, key)
        producer.commit_transaction(60)


def _sunk(
    kafka: KafkaSettings, engine: Engine, url: str, server: psutil.Process, kind: str, rows: int
) -> Run:
    """Between the sink's first commit and its last, without the rows of the first."""
    # Offsets, with a transaction's marker for every so many thousand rows: to count rows would cost the server more.
    position = text("select coalesce(sum(next_offset), 0) from sink_positions")
    samples: list[tuple[float, float, float, float]] = []
    with engine.connect() as connection, _sink(kafka, url) as process:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        before = float(connection.execute(position).scalar_one())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not samples or samples[-1][3] < rows:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the sink wrote {samples[-1:]} of {rows:,} rows")
            written = float(connection.execute(position).scalar_one()) - before
            spent = (_cpu([psutil.Process(process.pid)]), _cpu(server.children()))
            samples.append((time.monotonic(), *spent, written))
            time.sleep(0.05)
    began, ended = next(sample for sample in samples if sample[3]), samples[-1]
    return Run(kind, *(last - first for first, last in zip(began, ended, strict=True)))


def _cpu(processes: Sequence[psutil.Process]) -> float:
    """Of those that are still there: a server's helpers come and go."""
    spent = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent += times.user + times.system
    return spent


@contextmanager
def _sink(kafka: KafkaSettings, url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "streaming", "sink"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(kafka, url))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def main(rows: Annotated[int, typer.Option(help="Groups, each a row.")] = 200_000) -> None:
    """Measure on servers of its own."""
    logs.configure("benchmarks", LogSettings(log_level="WARNING"))
    for run in _runs(rows):
        print(
            f"{run.rows:,.0f} rows {run.kind}: {run.rows / run.seconds:,.0f}/s, "
            f"{run.rows / run.cpu_seconds:,.0f} per CPU-second of the sink, "
            f"{run.rows / run.server_cpu_seconds:,.0f} of PostgreSQL · load {psutil.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
