"""From a sale's commit to the API's answer, while 1,000 sales a second come in.

Every 50 ms a probe sale is inserted on a schedule, an open load; a tight loop polls the API for the probes' totals.
A probe's time runs from when it was due, so a stall counts for all that were due during it.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode, urlparse

import psycopg2
from sqlalchemy import make_url

from benchmarks.figures import Figure, at_most, percentile

EVENTS_PER_SECOND = 1_000
WARM_UP_SECONDS = 10.0
MEASURED_SECONDS = 40.0
PROBE_SECONDS = 0.05
# Probes take turns in so many cities: in one city the next comes 1.6 s later, so a count names its probe.
CITIES = 32
# No place on earth and a currency for tests: nothing else is in the answer.
COUNTRY, CURRENCY = "ZZ", "XTS"
# Two requests a round trip of some 3 ms would take a core of two; the pause is part of what is measured.
POLL_SECONDS = 0.005
TIMEOUT_SECONDS = 30.0
P50_MS, P99_MS = 50.0, 200.0


@dataclass
class Probes:
    """When each probe was due, committed and seen, in seconds of one monotonic clock."""

    due: list[float] = field(default_factory=list)
    committed: list[float] = field(default_factory=list)
    seen: dict[int, float] = field(default_factory=dict)


def measure(environment: Mapping[str, str], seconds: float = MEASURED_SECONDS) -> list[Figure]:
    """Percentiles of the latency, on a platform that runs."""
    with load(environment):
        from_due, from_commit = sampled(environment, WARM_UP_SECONDS, seconds)
    name = f"sale due → API, {EVENTS_PER_SECOND:,}/s"
    return [
        at_most(f"{name}, p50", percentile(from_due, 0.50), "ms", P50_MS),
        Figure(f"{name}, p95", percentile(from_due, 0.95), "ms"),
        at_most(f"{name}, p99", percentile(from_due, 0.99), "ms", P99_MS),
        Figure("the same from the commit, p50", percentile(from_commit, 0.50), "ms"),
        Figure("the same from the commit, p99", percentile(from_commit, 0.99), "ms"),
    ]


def sampled(
    environment: Mapping[str, str], warm_up: float, seconds: float
) -> tuple[list[float], list[float]]:
    """Milliseconds to the API of every probe after the warm-up: from when it was due, and from its commit."""
    sales_url, api_url = environment["ELECTRORED_SALES_DB_URL"], environment["ELECTRORED_API_URL"]
    probes = _probe(sales_url, api_url, warm_up + seconds)
    measured = range(int(warm_up / PROBE_SECONDS), len(probes.due))
    from_due, from_commit = (
        [(probes.seen[n] - begun[n]) * 1000 for n in measured] for begun in (probes.due, probes.committed)
    )
    return from_due, from_commit


@contextmanager
def load(environment: Mapping[str, str], rate: int = EVENTS_PER_SECOND) -> Iterator[None]:
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


def _probe(sales_url: str, api_url: str, seconds: float) -> Probes:
    probes = Probes()
    total = int(seconds / PROBE_SECONDS)
    failures: list[BaseException] = []
    inserter = threading.Thread(target=_insert, args=(sales_url, probes, total, failures), daemon=True)
    responses = _responses(api_url)
    # Probes of an earlier measurement on this platform are in the totals already.
    before = {int(row["city"]): int(row["sales_count"]) for row in next(responses)["data"]}
    counts = [0] * CITIES
    deadline = time.monotonic() + seconds + TIMEOUT_SECONDS
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


def _insert(sales_url: str, probes: Probes, total: int, failures: list[BaseException]) -> None:
    """One committed sale each time one is due; late ones at once."""
    try:
        connection = psycopg2.connect(
            make_url(sales_url).set(drivername="postgresql").render_as_string(hide_password=False)
        )
        connection.autocommit = True
        cursor = connection.cursor()
        # One moment for all, so that they share a window.
        sold_at = datetime.now(UTC)
        begin = time.monotonic()
        for number in range(total):
            due = begin + number * PROBE_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
            cursor.execute(
                "INSERT INTO public.sales (sold_at, city, country, salesman_id, salesman_name, product, quantity, "
                "amount, currency) VALUES (%s, %s, %s, 'ZZ-1', 'Probe', 'Probe', 1, 1, %s)",
                (sold_at, str(number % CITIES), COUNTRY, CURRENCY),
            )
            probes.due.append(due)
            probes.committed.append(time.monotonic())
        connection.close()
    except psycopg2.Error as error:
        failures.append(error)


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
