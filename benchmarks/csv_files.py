"""A file of sales, from the inbox to the results: rows a second until every one is in the answer.

Everything that a row passes is measured: the copy and its hash, parsing, the cache of taken rows, `sales-events`,
combine and merge of top-sales-by-city, the sink's rows. Excluded are writing the file, starting the processes, and
Dagster, which needs some seconds to start a run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
import psycopg2

from benchmarks.figures import Figure
from benchmarks.servers import environment, results_url, servers
from contracts.settings import CsvSettings, KafkaSettings, ResultsDbSettings
from sources.csv.ingest import take
from stack import databases
from stack.embedded import Embedded
from stack.postgres import connect

ROOT = Path(__file__).parents[1]
HEADER = "sale_id,sold_at,city,country,salesman_id,salesman_name,product,quantity,amount,currency\n"
DAYS = 30
# Beyond this something is stuck.
TIMEOUT_SECONDS = 600.0
# The count is some 6,000 rows of totals.
POLL_SECONDS = 0.05
# What the rows are counted by: the same as what the API reads.
COUNT = "select coalesce(sum(sales_count), 0) from top_sales_by_city"


@dataclass(frozen=True)
class _Harness:
    kafka: KafkaSettings
    results: ResultsDbSettings
    count: psycopg2.extensions.cursor
    folder: Path
    processes: list[psutil.Popen]

    @property
    def next_file(self) -> Path:
        """Beside the inbox, to be renamed into it."""
        return self.folder / "next.csv"

    @property
    def inbox(self) -> CsvSettings:
        return CsvSettings(csv_inbox=self.folder / "inbox", csv_settle_seconds=0)

    def counted(self) -> int:
        """Rows that are in the answer now."""
        self.count.execute(COUNT)
        ((number,),) = self.count.fetchall()
        dead = [process.args for process in self.processes if process.poll() is not None]
        if dead:
            raise RuntimeError(f"ended: {dead}")
        return int(number)

    def cpu_seconds(self) -> float:
        """Of this process, which takes the file, and of those behind it; not of the servers."""
        own = time.process_time()
        return own + sum(sum(process.cpu_times()[:2]) for process in self.processes)


def figures(rows: int = 500_000) -> list[Figure]:
    """One file of so many rows, of about 90 bytes each, over a month and 200 cities."""
    with servers() as stack, _ready(stack) as harness:
        # Warm-up.
        _file(harness.next_file, 1_000, "w")
        _taken(harness, 1_000)
        size = _file(harness.next_file, rows, "r")
        before = harness.cpu_seconds()
        source, seconds = _taken(harness, 1_000 + rows)
        cpu = harness.cpu_seconds() - before
    what = f"CSV, {rows:,} rows in one file of {size / 1e6:.0f} MB"
    return [
        Figure(f"{what}: inbox → rows of top-sales-by-city", rows / seconds, "rows/s"),
        Figure("the same, per CPU-second of take, worker and sink", rows / cpu, "rows"),
        Figure("the same, inbox → sales-events alone", rows / source, "rows/s"),
    ]


@contextmanager
def _ready(stack: Embedded) -> Iterator[_Harness]:
    """The processes of the platform that a row passes."""
    url = results_url(stack)
    ours = environment(stack.kafka, url) | {"ELECTRORED_STATE_DIR": str(stack.folder)}
    for command in (("contracts", "setup"), ("streaming", "init")):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=ours, check=True)
    with ExitStack() as cleanup, tempfile.TemporaryDirectory(prefix="electrored-bench-") as folder:
        connection = connect(stack.postgres(databases.RESULTS))
        cleanup.callback(connection.close)
        processes: list[psutil.Popen] = []
        for arguments in (["work", "top-sales-by-city"], ["sink"]):
            process = psutil.Popen(
                [sys.executable, "-m", "streaming", *arguments],
                cwd=ROOT,
                env=ours,
                stdout=subprocess.DEVNULL,
            )
            cleanup.callback(_end, process)
            processes.append(process)
        results = ResultsDbSettings.model_validate({"results_db_url": url})
        harness = _Harness(stack.kafka, results, connection.cursor(), Path(folder), processes)
        harness.inbox.csv_inbox.mkdir()
        yield harness


def _end(process: psutil.Popen) -> None:
    if process.poll() is None:
        process.terminate()
    process.wait(60)


def _taken(harness: _Harness, expected: int) -> tuple[float, float]:
    """Seconds from the file's coming into the inbox until the log has its rows, and until the answer counts them."""
    started = time.perf_counter()
    harness.next_file.rename(harness.inbox.csv_inbox / f"sales_{expected}.csv")
    done = take(harness.kafka, harness.results, harness.inbox)
    source = time.perf_counter() - started
    if done.counts.rejected or done.counts.duplicates:
        raise RuntimeError(f"rows were refused: {done.counts}")
    deadline = started + TIMEOUT_SECONDS
    while (counted := harness.counted()) < expected:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{counted} of {expected} rows are counted")
        time.sleep(POLL_SECONDS)
    return source, time.perf_counter() - started


def _file(path: Path, rows: int, prefix: str) -> int:
    """A file of sales in the order of their times; gives its bytes."""
    chance = Random(1)
    with path.open("w", encoding="utf-8") as file:
        file.write(HEADER)
        for number in range(rows):
            second = DAYS * 86_400 * number // rows
            day, time_of_day = divmod(second, 86_400)
            hours, rest = divmod(time_of_day, 3_600)
            city = chance.randrange(200)
            file.write(
                f"{prefix}{number:09d},2026-01-{day + 1:02d}T{hours:02d}:{rest // 60:02d}:{rest % 60:02d}Z,City {city},"
                f"{('DE', 'FR', 'US', 'JP')[city % 4]},s{chance.randrange(400)},Alex Smith,product,1,"
                f"{chance.randrange(1, 100_000) / 100:.2f},EUR\n"
            )
    return path.stat().st_size
