"""A replay of a log that is there already: events a second, and a second of one core, slices one after the other.

Counted are the slices' own time and memory, not the broker's; no rows are written to PostgreSQL.
The start of a process is a figure of its own: it is the same for a slice of any length.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from benchmarks.figures import Figure, at_least
from benchmarks.harness import Harness, in_child, preload
from benchmarks.servers import environment, results_url, servers
from contracts.settings import KafkaSettings, LogSettings
from observability import logs
from stack.embedded import Embedded
from streaming.engine.pipeline import Parameters
from streaming.generations import catalog
from streaming.generations.catalog import Generation, load
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay import build, retirement
from streaming.replay.build import Slice
from streaming.replay.request import Request

ROOT = Path(__file__).parents[1]
NAME = "top-sales-by-city"
TARGET = 250_000.0
# Memory is flat if the second takes no more than the first.
SIZES = (1_000_000, 4_000_000)


@dataclass(frozen=True)
class Replayed:
    """What all slices of one replay took, and the greatest of them."""

    events: int
    seconds: float
    cpu_seconds: float
    begun_seconds: float
    mebibytes: float


def figures(sizes: Sequence[int] = SIZES) -> list[Figure]:
    """A replay of each size, the log growing in between; every slice in a process that does nothing else."""
    runs = list(_runs(sizes))
    last = runs[-1]
    measured = [
        Figure(
            f"replay of {last.events:,} events, one slice at a time", last.events / last.seconds, "events/s"
        ),
        at_least("replay, per CPU-second of a core", last.events / last.cpu_seconds, "events", TARGET),
        Figure("replay: CPU-seconds of a process before its slice", last.begun_seconds, "s"),
    ]
    measured += [
        Figure(f"replay of {run.events:,} events: memory of a slice at most", run.mebibytes, "MiB")
        for run in runs
    ]
    return measured


def _runs(sizes: Sequence[int]) -> Iterator[Replayed]:
    with servers() as stack, tempfile.TemporaryDirectory() as folder:
        url = prepared(stack)
        engine = create_engine(url, poolclass=NullPool)
        pipeline = PIPELINES[NAME, CURRENT[NAME]]
        parameters = Parameters("UTC", timedelta(hours=1), "1-day")
        catalog.create(stack.kafka, engine, pipeline, parameters, reason="bench", created_by="bench")
        there = 0
        for events in sizes:
            preload(Harness(stack.kafka, pipeline, f"replay-{events}"), events, first=there)
            there = events
            generation = build.begin(stack.kafka, engine, Request(NAME, "bench", "bench"))
            yield _replayed(stack.kafka, url, generation, events, folder)
            retirement.retire(stack.kafka, engine, NAME, generation.number)


def _replayed(kafka: KafkaSettings, url: str, generation: Generation, events: int, folder: str) -> Replayed:
    started, cpu, memory = time.perf_counter(), 0.0, 0.0
    before: list[float] = []
    for pieces in build.slices(generation):
        for piece in pieces:
            begun, of_slice, peak = in_child(_run, kafka, url, generation.number, piece, folder)
            before.append(begun)
            cpu += of_slice
            memory = max(memory, peak)
    return Replayed(events, time.perf_counter() - started, cpu, sum(before) / len(before), memory)


def prepared(stack: Embedded) -> str:
    url = results_url(stack)
    command = [sys.executable, "-m", "contracts", "setup"]
    subprocess.run(command, cwd=ROOT, env=environment(stack.kafka, url), check=True)
    return url


def _run(
    kafka: KafkaSettings, url: str, number: int, piece: Slice, folder: str
) -> tuple[float, float, float]:
    """CPU-seconds of the process before the slice, of the slice, and MiB."""
    results, begun = create_engine(url, poolclass=NullPool), time.process_time()
    build.run_slice(
        kafka, results, load(results, NAME, number), piece, Path(folder), share=1.0, stop=threading.Event()
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return begun, time.process_time() - begun, peak


def main(
    sizes: Annotated[list[int], typer.Argument(help="Events in the log, growing.")],
) -> None:
    """Measure on servers of its own; prints each size when it is done."""
    logs.configure("benchmarks", LogSettings(log_level="WARNING"))
    for run in _runs(sizes):
        print(
            f"{run.events:,} events: {run.events / run.cpu_seconds:,.0f} per CPU-second "
            f"({run.events / run.seconds:,.0f}/s, one slice at a time) · {run.mebibytes:.0f} MiB at most · "
            f"{run.begun_seconds:.1f} CPU-seconds of a process before · load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
