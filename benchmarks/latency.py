"""From a sale's commit to the API's answer: one sale a second and nothing else, 1,000 and 3,000 sales a second.

Probe sales are inserted on a schedule, an open load; a tight loop polls the API for the probes' totals. A probe's time
runs from when it was due, so a stall counts for all that were due during it, and so does a late sender.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode, urlparse

import psycopg2
from sqlalchemy import make_url

from benchmarks.figures import Figure, at_most, percentile

WARM_UP_SECONDS = 10.0
MEASURED_SECONDS = 40.0
# While nothing else comes in, the probes are the sales: one a second.
IDLE_PROBES, IDLE_PROBE_SECONDS = 60, 1.0
PROBE_SECONDS = 0.05
# A load further behind than this was not the load that the row names.
MOST_BEHIND_SECONDS = 1.0
# Probes take turns in so many cities: in one city the next comes 1.6 s later or more, so a count names its probe.
CITIES = 32
# No place on earth and a currency for tests: nothing else is in the answer.
COUNTRY, CURRENCY = "ZZ", "XTS"
# Two requests a round trip of some 3 ms would take a core of two; the pause is part of what is measured.
POLL_SECONDS = 0.005
# A load that is more than the platform takes piles up meanwhile.
TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Row:
    """A load, and what its latency may be. `rate` is in sales a second; None: no load beside the probes."""

    name: str
    rate: int | None
    p50_ms: float | None
    p99_ms: float


IDLE = Row("one sale a second", None, 25.0, 60.0)
LOADS = (
    Row("1,000 sales/s", 1_000, 50.0, 200.0),
    Row("3,000 sales/s", 3_000, None, 500.0),
)


@dataclass
class Probes:
    """When each probe was due and seen, in seconds of one monotonic clock."""

    due: list[float] = field(default_factory=list)
    seen: dict[int, float] = field(default_factory=dict)


def measure(
    environment: Mapping[str, str],
    loads: Sequence[Row] = LOADS,
    idle_probes: int = IDLE_PROBES,
    seconds: float = MEASURED_SECONDS,
) -> list[Figure]:
    """Percentiles of the latency, on a platform that runs; the idle one first."""
    idle = sampled(environment, WARM_UP_SECONDS, idle_probes * IDLE_PROBE_SECONDS, IDLE_PROBE_SECONDS)
    measured = _figures(IDLE, idle)
    for row in loads:
        with load(environment, row.rate or 0):
            measured += _figures(row, sampled(environment, WARM_UP_SECONDS, seconds))
            behind = _behind(environment)
        measured.append(
            at_most(f"{row.name}: the load behind its schedule", behind, "s", MOST_BEHIND_SECONDS)
        )
    return measured


def _figures(row: Row, took: Sequence[float]) -> list[Figure]:
    name = f"sale due → API, {row.name}"
    p50, p99 = percentile(took, 0.50), percentile(took, 0.99)
    return [
        Figure(f"{name}, p50", p50, "ms")
        if row.p50_ms is None
        else at_most(f"{name}, p50", p50, "ms", row.p50_ms),
        at_most(f"{name}, p99", p99, "ms", row.p99_ms),
        Figure(f"{name}, at most, of {len(took):,}", max(took), "ms"),
    ]


def sampled(
    environment: Mapping[str, str], warm_up: float, seconds: float, every: float = PROBE_SECONDS
) -> list[float]:
    """Milliseconds from when it was due to the API's answer, of every probe after the warm-up."""
    sales_url, api_url = environment["ELECTRORED_SALES_DB_URL"], environment["ELECTRORED_API_URL"]
    probes = _probe(sales_url, api_url, int((warm_up + seconds) / every), every)
    measured = range(int(warm_up / every), len(probes.due))
    return [(probes.seen[n] - probes.due[n]) * 1000 for n in measured]


def _behind(environment: Mapping[str, str]) -> float:
    """Seconds since the newest sale of the load, which is sold when it is due."""
    with closing(psycopg2.connect(dsn(environment["ELECTRORED_SALES_DB_URL"]))) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT extract(epoch FROM clock_timestamp() - max(sold_at)) FROM public.sales WHERE country <> %s",
            (COUNTRY,),
        )
        ((seconds,),) = cursor.fetchall()
    return float(seconds)


@contextmanager
def load(environment: Mapping[str, str], rate: float) -> Iterator[None]:
    """The simulator at this rate, with its usual updates and deletes."""
    command = [sys.executable, "-m", "simulators", "sales", "--rate", str(rate), "--seed", "1"]
    own = os.environ | {"ELECTRORED_SALES_DB_URL": environment["ELECTRORED_SALES_DB_URL"]}
    process = subprocess.Popen(command, env=own, stderr=subprocess.DEVNULL)
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the load ended early, with exit code {process.returncode}")
    finally:
        process.terminate()
        process.wait(20)


def _probe(sales_url: str, api_url: str, total: int, every: float) -> Probes:
    probes = Probes()
    failures: list[BaseException] = []
    inserter = threading.Thread(target=_insert, args=(sales_url, probes, total, every, failures), daemon=True)
    responses = _responses(api_url)
    # Probes of an earlier measurement on this platform are in the totals already.
    before = {int(row["city"]): int(row["sales_count"]) for row in next(responses)["data"]}
    counts = [0] * CITIES
    deadline = time.monotonic() + total * every + TIMEOUT_SECONDS
    inserter.start()
    for response in responses:
        at = time.monotonic()
        for row in response["data"]:
            city = int(row["city"])
            count = int(row["sales_count"]) - before.get(city, 0)
            for turn in range(counts[city], count):
                probes.seen[turn * CITIES + city] = at
            counts[city] = count
        if len(probes.seen) == total:
            break
        if failures:
            raise failures[0]
        if at > deadline:
            raise TimeoutError(f"{total - len(probes.seen)} of {total} probes were never seen in the API")
        time.sleep(POLL_SECONDS)
    inserter.join(TIMEOUT_SECONDS)
    return probes


def _insert(sales_url: str, probes: Probes, total: int, every: float, failures: list[BaseException]) -> None:
    """One committed sale each time one is due; late ones at once."""
    try:
        connection = psycopg2.connect(dsn(sales_url))
        connection.autocommit = True
        cursor = connection.cursor()
        # One moment for all, so that they share a window.
        sold_at = datetime.now(UTC)
        begin = time.monotonic()
        for number in range(total):
            due = begin + number * every
            time.sleep(max(0.0, due - time.monotonic()))
            cursor.execute(
                "INSERT INTO public.sales (sold_at, city, country, salesman_id, salesman_name, product, quantity, "
                "amount, currency) VALUES (%s, %s, %s, 'ZZ-1', 'Probe', 'Probe', 1, 1, %s)",
                (sold_at, str(number % CITIES), COUNTRY, CURRENCY),
            )
            probes.due.append(due)
        connection.close()
    except psycopg2.Error as error:
        failures.append(error)


def dsn(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _responses(api_url: str) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Responses of the API to one query, each once, over one connection."""
    address = urlparse(api_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
    today = datetime.now(UTC).date().isoformat()
    query = urlencode({"date": today, "country": COUNTRY, "currency": CURRENCY, "limit": CITIES})
    etag = ""
    try:
        while True:
            connection.request("GET", f"/api/v1/top-sales/by-city?{query}", headers={"If-None-Match": etag})
            response = connection.getresponse()
            body = response.read()
            if response.status == 304:
                yield {"data": []}
                continue
            if response.status != 200:
                raise RuntimeError(f"the API answered {response.status}: {body.decode(errors='replace')}")
            etag = response.headers["ETag"]
            yield json.loads(body)
    finally:
        connection.close()
