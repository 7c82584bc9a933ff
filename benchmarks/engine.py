"""top-sales-by-city alone, exactly once, beside its peers on the same log in the same minutes: events a CPU-second.

The machine is shared and noisy, so the ratio counts, not the figures. The peers are Kafka Streams, which answers the
same question, and kcat, which reads the log and does nothing with it. Each reads the log some times in turn, and the
best of each counts, because other work on the machine can only make it worse.
"""

from __future__ import annotations

from collections.abc import Callable

import psutil

from benchmarks import peers
from benchmarks.figures import Figure, at_least, not_measured
from benchmarks.harness import Harness, preload
from benchmarks.servers import servers
from benchmarks.workers import Run, run

PIPELINE = "top-sales-by-city"
# By name of the peer: how to measure it, and how many times its rate ours has to be.
PEERS: dict[str, tuple[Callable[[Harness, int], float], float]] = {
    "Kafka Streams 4.3": (peers.kafka_streams, 10.0),
    "kcat -C -f ''": (peers.kcat, 0.5),
}


def figures(events: int = 2_000_000, rounds: int = 2) -> list[Figure]:
    """Each reads the log so many times, on servers of their own."""
    ours: list[Run] = []
    theirs: dict[str, list[float]] = {name: [] for name in PEERS}
    missing: dict[str, str] = {}
    with servers() as stack:
        loaded = Harness.make(stack.kafka, PIPELINE)
        preload(loaded, events)
        broker = psutil.Process(stack.processes["kafka"].pid)
        for _ in range(rounds):
            ours.append(run(loaded.read_by(PIPELINE), events, broker))
            for name, (measure, _) in PEERS.items():
                try:
                    theirs[name].append(measure(loaded, events))
                except peers.Missing as error:
                    missing[name] = str(error)
    best = max(each.per_cpu_second for each in ours)
    measured = [
        Figure(f"{PIPELINE} alone", max(each.rate for each in ours), "events/s"),
        Figure(f"{PIPELINE} alone, per CPU-second", best, "events"),
    ]
    for name, (_, ratio) in PEERS.items():
        beside = f"{PIPELINE} alone, per CPU-second, beside {name}"
        if name in missing:
            measured.append(not_measured(beside, f"≥ {ratio:g}", missing[name]))
            continue
        measured.append(Figure(f"{name}, per CPU-second", max(theirs[name]), "events"))
        measured.append(at_least(beside, best / max(theirs[name]), "×", ratio))
    return measured
