"""What a replay costs live traffic: latency from a sale to the API with and without one, in turns on one platform.

The replay is of the pipeline that is queried, over a history that was put into the log before.
`python -m benchmarks.beside 0.5 1.0` measures these shares of a slice's time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psycopg2
import typer
from rich.console import Console
from sqlalchemy import make_url
from tenacity import Retrying, stop_after_delay, wait_fixed

from benchmarks import latency, platform
from benchmarks.figures import Figure, at_most, percentile, table
from benchmarks.harness import Harness, preload
from benchmarks.servers import clean_environment
from contracts.settings import KafkaSettings, LogSettings
from observability import logs
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay.build import SHARE

NAME = "top-sales-by-city"
# Moderate: a shop that sells 17 million times a day.
SALES_PER_SECOND = 200
MOST_RATIO = 2.0
# In turns, so that other load of the machine affects both.
TURNS = 2
WARM_UP_SECONDS, MEASURED_SECONDS = 5.0, 20.0
# A slice at full speed does not get through it in a turn.
HISTORY = 3_000_000
# The join keeps every sale, and is not what is measured: its history is of few sales that come again and again.
SALE_IDS = 1_000
TAKEN_SECONDS = 600.0
TABLES = ("city_totals", "salesman_totals", "joined_sales")


def measure(
    environment: Mapping[str, str], shares: Sequence[float] = (SHARE,), events: int = HISTORY
) -> list[Figure]:
    """Percentiles without and with a replay, and their ratio for each share, on a platform that runs."""
    _fill(environment, events)
    took: dict[float | None, list[float]] = defaultdict(list)
    with latency.load(environment, SALES_PER_SECOND):
        for _ in range(TURNS):
            for share in (None, *shares):
                with _replaying(environment, share):
                    took[share] += latency.sampled(environment, WARM_UP_SECONDS, MEASURED_SECONDS)
    alone = took.pop(None)
    name = f"sale due → API, {SALES_PER_SECOND}/s"
    figures = [Figure(f"{name}, p{n}", percentile(alone, n / 100), "ms") for n in (50, 99)]
    for share, with_it in took.items():
        for n in (50, 99):
            now, before = percentile(with_it, n / 100), percentile(alone, n / 100)
            beside = f"the same beside a replay, share {share:g}, p{n}"
            figures.append(Figure(beside, now, "ms"))
            figures.append(at_most(f"{beside}: ratio", now / before, "×", MOST_RATIO))
    return figures


def _fill(environment: Mapping[str, str], events: int) -> None:
    """Put a history into the log, and wait until every pipeline has counted it."""
    kafka = KafkaSettings(
        kafka_bootstrap=environment["ELECTRORED_KAFKA_BOOTSTRAP"],
        schema_registry_url=environment["ELECTRORED_SCHEMA_REGISTRY_URL"],
    )
    url = make_url(environment["ELECTRORED_RESULTS_DB_URL"]).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    connection.autocommit = True
    with connection.cursor() as cursor:
        before = {name: _counted(cursor, name) for name in TABLES}
        # Sources of their own: events of an existing source would have to continue its seq.
        preload(Harness(kafka, PIPELINES[NAME, CURRENT[NAME]], "beside"), events, sale_ids=SALE_IDS)
        deadline = time.monotonic() + TAKEN_SECONDS
        while any(_counted(cursor, name) < before[name] + events for name in TABLES):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{events:,} events of the history were not counted in time")
            time.sleep(0.5)
    connection.close()


def _counted(cursor: psycopg2.extensions.cursor, name: str) -> int:
    cursor.execute(f"SELECT coalesce(sum(sales_count), 0) FROM {name} WHERE generation = 1")
    return int(cursor.fetchone()[0])  # type: ignore[index]


@contextmanager
def _replaying(environment: Mapping[str, str], share: float | None) -> Iterator[None]:
    """A replay from the beginning of the log, ended and taken away afterwards; none without a share."""
    if share is None:
        yield
        return
    state = ["--state-dir", environment[platform.STATE]]
    number = _newest(environment) + 1
    command = platform.command("replay", *state, NAME, "--reason", "bench", "--share", str(share))
    log = Path(environment[platform.STATE]) / "bench-replay.log"
    with log.open("wb") as output:
        # A group of its own, which Ctrl-C ends: the command and its slices.
        process = subprocess.Popen(
            command,
            env=clean_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the replay ended before the measurement: {log.read_text()[-500:]}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
    # Its slices end a moment after the command; until then it is refused.
    retrying = Retrying(stop=stop_after_delay(30), wait=wait_fixed(1), reraise=True)
    retrying(lambda: platform.electrored("retire", *state, NAME, str(number), "--yes"))


def _newest(environment: Mapping[str, str]) -> int:
    url = make_url(environment["ELECTRORED_RESULTS_DB_URL"]).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(number) FROM generations WHERE pipeline = %s", (NAME,))
        newest = cursor.fetchone()
    connection.close()
    return int(newest[0])  # type: ignore[index]


def main(
    shares: Annotated[list[float], typer.Argument(help="Of a slice's time, each measured.")],
    events: Annotated[int, typer.Option(help="In the history.")] = HISTORY,
) -> None:
    """Measure on a platform of its own."""
    logs.configure("benchmarks", LogSettings(log_level="WARNING"))
    with platform.running() as environment:
        figures = measure(environment, shares, events)
    Console().print(table(figures, f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"))


if __name__ == "__main__":
    typer.run(main)
