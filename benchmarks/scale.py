"""1, 2 and 4 worker processes over one log of 8 partitions, exactly-once: events a second, and CPU-seconds per million.

On a machine of two cores the seconds cannot more than halve, and Kafka is on it as well. The CPU time of an event has
to stay the same: then more machines do more. Counted from when every process has committed something; Kafka's own
beside it.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.engine import Harness, preload_by_two, total
from benchmarks.figures import Figure, at_most
from benchmarks.servers import servers
from contracts.settings import LogSettings
from observability import logs
from observability.metrics import EVENTS
from streaming.generations.worker import Worker

PIPELINE = "top-sales-by-city"
PARTITIONS = 8
COUNTS = (1, 2, 4)
# More processes make smaller transactions of the same events, and each of those costs something. It must not be more.
MOST_CPU_RATIO = 1.25
# No counter moves: far longer than a transaction.
QUIET_SECONDS = 2.0
PATIENCE_SECONDS = 300.0

# Seconds on the machine's one monotonic clock, CPU-seconds, events that combine counted.
Sample = tuple[float, float, float]


@dataclass(frozen=True)
class Run:
    """What so many processes did between the first commit of the last of them and the last commit of all."""

    processes: int
    events: float
    seconds: float
    cpu_seconds: float
    kafka_cpu_seconds: float
    bytes_per_event: float

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    @property
    def cpu_per_million(self) -> float:
        return self.cpu_seconds / self.events * 1_000_000

    @property
    def kafka_per_million(self) -> float:
        return self.kafka_cpu_seconds / self.events * 1_000_000


def figures(events: int = 4_000_000) -> list[Figure]:
    """All counts over the same log, on servers of their own."""
    runs = list(_runs(events, COUNTS))
    one, most = runs[0], runs[-1]
    measured = [Figure("combine + merge, 1 process, 8 partitions", one.rate, "events/s")]
    measured += [
        Figure(f"the same by {run.processes} processes", run.rate / one.rate, "×") for run in runs[1:]
    ]
    measured += [
        Figure(f"CPU-seconds per million events, {run.processes}", run.cpu_per_million, "s") for run in runs
    ]
    measured.append(Figure("a sale in the log, loaded in bulk, on disk", one.bytes_per_event, "bytes"))
    measured.append(
        at_most(
            f"CPU of an event, {most.processes} processes beside 1",
            most.cpu_per_million / one.cpu_per_million,
            "×",
            MOST_CPU_RATIO,
        )
    )
    return measured


def _runs(events: int, counts: Sequence[int]) -> Iterator[Run]:
    with servers() as stack:
        loaded = Harness.make(stack.kafka, PIPELINE, PARTITIONS)
        preload_by_two(loaded, events)
        broker = psutil.Process(stack.processes["kafka"].pid)
        size = sum(file.stat().st_size for file in stack.folder.rglob(f"{loaded.source.name}-*/*.log"))
        for count in counts:
            yield replace(_run(loaded.anew(), events, count, broker), bytes_per_event=size / events)


def _run(harness: Harness, events: int, count: int, broker: psutil.Process) -> Run:
    context = multiprocessing.get_context("spawn")
    moved, stop, results = context.Array("d", 2 * count), context.Event(), context.Queue()
    imported = context.Barrier(count)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_work, args=(harness, instance_id, folder, imported, moved, stop, results))
            for instance_id in range(count)
        ]
        for process in processes:
            process.start()
        try:
            kafka = _watch(moved, events, processes, broker)
        finally:
            stop.set()
        all_samples = [results.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
    return _counted(all_samples, kafka)


def _work(
    harness: Harness,
    instance_id: int,
    folder: str,
    imported: Barrier,
    moved: SynchronizedArray[float],
    stop: Event,
    results: multiprocessing.Queue[list[Sample]],
) -> None:
    """A worker until `stop`; its counters go to `moved` as they grow, its samples to `results` at the end.

    It begins when all processes have imported what they need: one that comes late would find the log read.
    """
    logs.configure("benchmark", LogSettings(log_level="WARNING"))
    ended = threading.Event()
    worker = Worker(
        harness.kafka,
        harness.pipeline,
        harness.generation(),
        instance_id,
        Path(folder),
        lambda *_: (),
        **harness.side_topics,
    )
    thread = threading.Thread(target=worker.run, args=(ended,))
    imported.wait(PATIENCE_SECONDS)
    thread.start()
    samples: list[Sample] = []
    while not stop.wait(0.02) and thread.is_alive():
        sample = (time.monotonic(), time.process_time(), total(EVENTS, "combine"))
        samples.append(sample)
        moved[2 * instance_id], moved[2 * instance_id + 1] = sample[2], total(EVENTS, "merge")
    ended.set()
    thread.join()
    results.put(samples)


def _watch(
    moved: SynchronizedArray[float], events: int, processes: Sequence[Any], broker: psutil.Process
) -> list[Sample]:
    """Kafka's samples until all events have come to a total, and all is quiet."""
    samples: list[Sample] = []
    last, quiet_since = moved[:], time.monotonic()
    deadline = quiet_since + PATIENCE_SECONDS
    while sum(last[::2]) < events or time.monotonic() - quiet_since < QUIET_SECONDS:
        if time.monotonic() > deadline or not all(process.is_alive() for process in processes):
            raise RuntimeError(f"combined {sum(last[::2]):,.0f} of {events:,} events")
        time.sleep(0.02)
        spent = broker.cpu_times()
        samples.append((time.monotonic(), spent.user + spent.system, 0.0))
        now = moved[:]
        if now != last:
            last, quiet_since = now, time.monotonic()
    # Merge's last commit, as the samples below have it.
    return [sample for sample in samples if sample[0] <= quiet_since]


def _counted(all_samples: Sequence[Sequence[Sample]], kafka: Sequence[Sample]) -> Run:
    first = [next((sample[0] for sample in samples if sample[2]), None) for samples in all_samples]
    begun = [at for at in first if at is not None]
    if len(begun) < len(first):
        raise ValueError("a process got nothing to read before the others had read all: too few events")
    began = max(begun)
    ended = kafka[-1][0]

    def between(samples: Sequence[Sample], what: int) -> float:
        first = next(sample for sample in samples if sample[0] >= began)
        last = [sample for sample in samples if sample[0] <= ended][-1]
        return last[what] - first[what]

    return Run(
        processes=len(all_samples),
        events=sum(between(samples, 2) for samples in all_samples),
        seconds=ended - began,
        cpu_seconds=sum(between(samples, 1) for samples in all_samples),
        kafka_cpu_seconds=between(kafka, 1),
        bytes_per_event=0.0,
    )


def main(
    events: Annotated[int, typer.Option(help="Events in the log.")] = 4_000_000,
    counts: Annotated[list[int] | None, typer.Argument(help="Numbers of processes.")] = None,
) -> None:
    """Measure on servers of its own; prints each count when it is done."""
    logs.configure("benchmarks", LogSettings(log_level="WARNING"))
    for run in _runs(events, counts or COUNTS):
        print(
            f"{run.processes} processes: {run.rate:,.0f} events/s · {run.cpu_per_million:.2f} CPU-seconds per million "
            f"· Kafka's {run.kafka_per_million:.2f} · over {run.events:,.0f} events in {run.seconds:.1f} s "
            f"· {run.bytes_per_event:.0f} bytes an event on disk · load {psutil.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
