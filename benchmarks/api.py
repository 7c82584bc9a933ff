"""The API under an open load of 200 requests a second, while 1,000 sales a second come in.

Requests are due on a schedule. A request's time runs from when it was due, so a stall counts for all that were due
during it.
"""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlparse

from benchmarks import latency
from benchmarks.figures import Figure, at_most, percentile

REQUESTS_PER_SECOND = 200
SALES_PER_SECOND = 1_000
WARM_UP_SECONDS = 3.0
MEASURED_SECONDS = 20.0
P99_MS = 20.0
# Enough to keep to the schedule while the API takes 160 ms for each.
CONNECTIONS = 32
TIMEOUT_SECONDS = 60.0
# As a board and its readers send them: mostly the first page, sometimes one country, sometimes many rows.
PATHS = (
    "/api/v1/top-sales/by-city",
    "/api/v1/top-sales/by-city?currency=EUR",
    "/api/v1/top-salesmen/by-country?country=DE",
    "/api/v1/top-sales/by-city?country=DE&limit=100",
    "/api/v1/top-salesmen/by-country?limit=3",
)


def measure(
    environment: Mapping[str, str], seconds: float = MEASURED_SECONDS, paths: Sequence[str] = PATHS
) -> list[Figure]:
    """Percentiles of the time to answer, on a platform that runs. Raises RuntimeError for any answer but 200."""
    with latency.load(environment, SALES_PER_SECOND):
        took = _load(environment["ELECTRORED_API_URL"], WARM_UP_SECONDS + seconds, paths)
    measured = [ms for due, ms in took if due >= WARM_UP_SECONDS]
    name = f"API at {REQUESTS_PER_SECOND} requests/s while {SALES_PER_SECOND:,} sales/s come in"
    return [
        Figure(f"{name}, p50", percentile(measured, 0.50), "ms"),
        Figure(f"{name}, p95", percentile(measured, 0.95), "ms"),
        at_most(f"{name}, p99", percentile(measured, 0.99), "ms", P99_MS),
    ]


def _load(api_url: str, seconds: float, paths: Sequence[str]) -> list[tuple[float, float]]:
    """When each request was due, in seconds from the beginning, and the milliseconds from then to its answer."""
    address = urlparse(api_url)
    numbers = itertools.count()
    took: list[tuple[float, float]] = []
    failures: list[BaseException] = []
    begin = time.perf_counter() + 0.1

    def send_requests() -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
        try:
            while not failures:
                number = next(numbers)
                due = number / REQUESTS_PER_SECOND
                if due >= seconds:
                    return
                time.sleep(max(0.0, begin + due - time.perf_counter()))
                path = paths[number % len(paths)]
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    raise RuntimeError(f"{path}: {response.status} {body.decode(errors='replace')}")
                took.append((due, (time.perf_counter() - begin - due) * 1000))
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=send_requests) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return took
