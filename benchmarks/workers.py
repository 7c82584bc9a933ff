"""Worker processes over logs that are there already: events, time, and what they and Kafka spend on them.

Counted is from the first commit of the process that commits last to the last commit of all. So neither the start of a
process is in it, nor what one does before the others have begun.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import Harness
from contracts.settings import LogSettings
from observability import logs
from observability.metrics import EVENTS
from streaming.generations.worker import Worker

# No counter moves: longer than a transaction may last, so that none of merge is cut off on a busy machine. Not counted.
QUIET_SECONDS = 10.0
PATIENCE_SECONDS = 300.0

# Seconds on the machine's one monotonic clock, CPU-seconds, events that combine counted.
Sample = tuple[float, float, float]


@dataclass(frozen=True)
class Run:
    """What so many processes did together; `mebibytes` are the resident memory of the greatest."""

    processes: int
    events: float
    seconds: float
    cpu_seconds: float
    kafka_cpu_seconds: float
    mebibytes: float

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.events / self.cpu_seconds

    @property
    def cpu_per_million(self) -> float:
        return self.cpu_seconds / self.events * 1_000_000

    @property
    def kafka_per_million(self) -> float:
        return self.kafka_cpu_seconds / self.events * 1_000_000


def run(harness: Harness, events: int, broker: psutil.Process, count: int = 1) -> Run:
    """So many processes until they have counted all `events` of the harness's logs.

    Raises ValueError if there are too few to have an interval.
    """
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
        measured = [results.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
    return counted([samples for samples, _ in measured], kafka, max(peak for _, peak in measured))


def _work(
    harness: Harness,
    instance_id: int,
    folder: str,
    imported: Barrier,
    moved: SynchronizedArray[float],
    stop: Event,
    results: multiprocessing.Queue[tuple[list[Sample], float]],
) -> None:
    """A worker until `stop`; its counters go to `moved` as they grow, its samples and memory to `results` at the end.

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
        sample = (time.monotonic(), time.process_time(), _total("combine"))
        samples.append(sample)
        moved[2 * instance_id], moved[2 * instance_id + 1] = sample[2], _total("merge")
    ended.set()
    thread.join()
    results.put((samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _total(step: str) -> float:
    """Events of this step, over all inputs; read from the objects: collecting all costs what is measured."""
    children: Any = list(EVENTS._metrics.items())
    return float(sum(child._value.get() for values, child in children if f".g1.{step}" in values[0]))


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


def counted(all_samples: Sequence[Sequence[Sample]], kafka: Sequence[Sample], mebibytes: float) -> Run:
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

    events = sum(between(samples, 2) for samples in all_samples)
    if not events:
        raise ValueError("the events are one commit: too few to have an interval")
    return Run(
        processes=len(all_samples),
        events=events,
        seconds=ended - began,
        cpu_seconds=sum(between(samples, 1) for samples in all_samples),
        kafka_cpu_seconds=between(kafka, 1),
        mebibytes=mebibytes,
    )
