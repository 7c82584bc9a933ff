"""1, 2 and 4 worker processes over one log of 8 partitions, exactly once: events a second, and CPU-seconds per million.

On a machine of two cores the seconds cannot more than halve, and Kafka is on it as well. The CPU time of an event has
to stay the same: then more machines do more. Kafka's own beside it.
"""

from __future__ import annotations

import psutil

from benchmarks.figures import Figure, at_most
from benchmarks.harness import Harness, preload
from benchmarks.servers import servers
from benchmarks.workers import run

PIPELINE = "top-sales-by-city"
PARTITIONS = 8
COUNTS = (1, 2, 4)
# More processes make smaller transactions of the same events, and each of those costs something. It must not be more.
MOST_CPU_RATIO = 1.25


def figures(events: int = 4_000_000) -> list[Figure]:
    """All counts over the same log, on servers of their own."""
    with servers() as stack:
        loaded = Harness.make(stack.kafka, PIPELINE, PARTITIONS)
        preload(loaded, events)
        broker = psutil.Process(stack.processes["kafka"].pid)
        size = sum(file.stat().st_size for file in stack.folder.rglob(f"{loaded.source.name}-*/*.log"))
        runs = [run(loaded.read_by(PIPELINE), events, broker, count) for count in COUNTS]
    one, most = runs[0], runs[-1]
    measured = [Figure(f"{PIPELINE}, 1 process, {PARTITIONS} partitions", one.rate, "events/s")]
    measured += [
        Figure(f"the same by {each.processes} processes", each.rate / one.rate, "×") for each in runs[1:]
    ]
    for each in runs:
        measured += [
            Figure(f"CPU-seconds per million events, {each.processes}", each.cpu_per_million, "s"),
            Figure(f"Kafka's per million events, {each.processes}", each.kafka_per_million, "s"),
        ]
    measured.append(Figure("a sale in the log, loaded in bulk, on disk", size / events, "bytes"))
    measured.append(
        at_most(
            f"CPU of an event, {most.processes} processes beside 1",
            most.cpu_per_million / one.cpu_per_million,
            "×",
            MOST_CPU_RATIO,
        )
    )
    return measured
