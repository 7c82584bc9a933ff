"""All pipelines over one log of sales and their payments, exactly once: events a CPU-second of the workers together.

An event of the logs counts once, however many pipelines read it, and its cost is the sum of what every worker process
spends on it. Each worker process reads the logs alone on the machine, one after the other: so the figure stays the
same thing whether a process runs one pipeline or all of them.

Every sale has an id of its own and one payment, so each event changes a record of the join's state, where a sum has one
record for thousands of events.
"""

from __future__ import annotations

import psutil

from benchmarks.figures import Figure, at_least
from benchmarks.harness import Harness, preload, preload_payments
from benchmarks.servers import servers
from benchmarks.workers import run
from streaming.pipelines import CURRENT

JOIN = "enriched-sales"
PER_CPU_SECOND = 200_000.0


def figures(sales: int = 400_000) -> list[Figure]:
    """So many sales and as many payments, on servers of their own."""
    with servers() as stack:
        # The join reads both logs.
        loaded = Harness.make(stack.kafka, JOIN)
        preload(loaded, sales)
        preload_payments(loaded, sales)
        broker = psutil.Process(stack.processes["kafka"].pid)
        runs = {}
        spent = 0.0
        for name in CURRENT:
            harness = loaded.read_by(name)
            events = sales * len(harness.sources)
            runs[name] = run(harness, events, broker)
            # Of all its events: those of its first commit cost as much as the others.
            spent += events / runs[name].per_cpu_second
    join = runs[JOIN]
    return [
        at_least(
            f"{len(runs)} pipelines over one log, per CPU-second of the workers",
            2 * sales / spent,
            "events",
            PER_CPU_SECOND,
        ),
        Figure("join of sales and payments", join.rate, "events/s"),
        Figure("join of sales and payments, per CPU-second", join.per_cpu_second, "events"),
        Figure("join: memory at most", join.mebibytes, "MiB"),
    ]
