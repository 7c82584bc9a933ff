"""Every process on the way of a sale is killed in turn, under load: seconds until sales made after it are counted.

Right after each kill some sales are written that fall into every partition, as soon as the database takes them. Counted
is until the results of all pipelines have all of them, which is when everything that was killed works again. At the end
the results are compared with a GROUP BY over the table: a difference is an error, not a figure.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

import psycopg2
from psycopg2.extras import execute_values

from benchmarks import latency, platform
from benchmarks.figures import Figure, at_most

T = TypeVar("T")

SALES_PER_SECOND = 200
# Not that of the probes of latency, whose cities are numbers.
COUNTRY = "ZY"
# Enough for every partition of four, but for once in 10^7.
MARKS = 64
WORKER_SECONDS, ALL_SECONDS = 7.0, 15.0
POLL_SECONDS = 0.02
# Beyond this something is stuck.
PATIENCE_SECONDS = 180.0
# They bring a sale neither to the results nor to a topic.
ASIDE = ("api", "observer", "dagster-code", "dagster-daemon", "dagster-web")

BY_CITY = """
    SELECT date_trunc('day', sold_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', country, city, currency::text,
           sum(amount), count(*) FROM public.sales GROUP BY 1, 2, 3, 4
"""
BY_SALESMAN = """
    SELECT to_timestamp(floor(extract(epoch FROM sold_at) / (30 * 86400)) * 30 * 86400), country, salesman_id,
           currency::text, sum(amount), count(*) FROM public.sales GROUP BY 1, 2, 3, 4
"""
# A query of the table, and that of the results which has to return the same rows.
COMPARED = {
    BY_CITY: "SELECT window_start, country, city, currency, total, sales_count FROM top_sales_by_city",
    BY_SALESMAN: "SELECT window_start, country, salesman_id, currency, total, sales_count"
    " FROM top_salesman_by_country",
    "SELECT sale_id, currency::text, quantity, amount FROM public.sales": (
        "SELECT sale_id, currency, quantity, amount FROM enriched_sales"
    ),
}


def measure(environment: Mapping[str, str]) -> list[Figure]:
    """Seconds of each kill, on a platform that runs and whose only sales are in its table."""
    names = [name for name in platform.supervisor(environment).states() if name not in ASIDE]
    took = {}
    with latency.load(environment, SALES_PER_SECOND):
        for name in names:
            platform.caught_up(environment)
            took[name] = _kill(environment, name)
    began = time.monotonic()
    until(lambda: not _differences(environment), "the results are the table's GROUP BY")
    exact = time.monotonic() - began
    workers = [name for name in names if name.startswith("worker")]
    return [
        at_most(
            "a worker killed → its partitions read again",
            max(took[name] for name in workers),
            "s",
            WORKER_SECONDS,
        ),
        at_most(
            "every process killed in turn under load → exact again", max(took.values()), "s", ALL_SECONDS
        ),
        *(Figure(f"{name} killed", seconds, "s") for name, seconds in took.items()),
        Figure("after the last of them, until no result differs from the table", exact, "s"),
    ]


def _kill(environment: Mapping[str, str], name: str) -> float:
    pid = until(lambda: pid_of(environment, name), f"{name} runs")
    ids = [str(uuid4()) for _ in range(MARKS)]
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(lambda: _sell(environment, ids), f"{name} was killed; the sales database takes sales")
    until(
        lambda: _are_counted(environment, ids),
        f"{name} was killed; all pipelines count what was sold after it",
    )
    return time.monotonic() - began


def pid_of(environment: Mapping[str, str], name: str) -> int:
    """0 while it does not run: never to be signalled, it stands for our own group."""
    state = platform.supervisor(environment).states()[name]
    return state.pid if state.state == "running" else 0


def _sell(environment: Mapping[str, str], ids: list[str]) -> bool:
    """One transaction, which may be repeated. The first id names city and salesman."""
    now = datetime.now(UTC)
    rows = [(one, now, ids[0], COUNTRY, ids[0], "Mark", "Mark", 1, 1, "XTS") for one in ids]
    with closing(_connect(environment, "ELECTRORED_SALES_DB_URL")) as connection:
        execute_values(
            connection.cursor(),
            "INSERT INTO public.sales (sale_id, sold_at, city, country, salesman_id, salesman_name, product, quantity, "
            "amount, currency) VALUES %s ON CONFLICT (sale_id) DO NOTHING",
            rows,
        )
    return True


def _are_counted(environment: Mapping[str, str], ids: list[str]) -> bool:
    """By every pipeline: each of the ids."""
    query = """
        SELECT (SELECT sum(sales_count) FROM top_sales_by_city WHERE city = %(mark)s),
               (SELECT sum(sales_count) FROM top_salesman_by_country WHERE salesman_id = %(mark)s),
               (SELECT count(*) FROM enriched_sales WHERE sale_id = ANY (%(ids)s))
    """
    with closing(_connect(environment, "ELECTRORED_RESULTS_DB_URL")) as connection:
        cursor = connection.cursor()
        cursor.execute(query, {"mark": ids[0], "ids": ids})
        return cursor.fetchone() == (MARKS, MARKS, MARKS)


def _differences(environment: Mapping[str, str]) -> set[tuple[Any, ...]]:
    """Rows that the table and the results do not have in common."""
    differences: set[tuple[Any, ...]] = set()
    for of_table, of_results in COMPARED.items():
        expected = _rows(environment, "ELECTRORED_SALES_DB_URL", of_table)
        differences |= expected ^ _rows(environment, "ELECTRORED_RESULTS_DB_URL", of_results)
    return differences


def _rows(environment: Mapping[str, str], variable: str, query: str) -> set[tuple[Any, ...]]:
    with closing(_connect(environment, variable)) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return set(cursor.fetchall())


def _connect(environment: Mapping[str, str], variable: str) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(latency.dsn(environment[variable]), connect_timeout=5)
    connection.autocommit = True
    return connection


def until(condition: Callable[[], T], what: str) -> T:
    """The condition's first true value, through outages of the database."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    problem = ""
    while True:
        try:
            if value := condition():
                return value
        except psycopg2.Error as error:
            problem = f": {error}"
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s: {what}{problem}")
        time.sleep(POLL_SECONDS)
