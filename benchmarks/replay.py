"""A replay of a log that is there already: events a second, and a second of one core, slices one after the other.

What is counted is the slices' own time and memory; the broker's is not in it, and no rows are written to PostgreSQL.
What a process costs before it begins is a figure of its own: it is the same for a slice of any length.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from benchmarks.engine import Ground, in_child, preload
from benchmarks.figures import Figure, at_least
from benchmarks.servers import servers
from contracts.settings import KafkaSettings
from stack import databases
from stack.embedded import Embedded
from streaming import generations
from streaming.engine.pipeline import Parameters
from streaming.generations import load
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay import building
from streaming.replay.building import Slice
from streaming.replay.request import Request

ROOT = Path(__file__).parents[1]
NAME = "top-sales-by-city"
TARGET = 250_000.0


def figures(events: int = 4_000_000) -> list[Figure]:
    """Every slice in a process that does nothing else."""
    with servers() as stack, tempfile.TemporaryDirectory() as folder:
        url = _prepared(stack)
        engine = create_engine(url, poolclass=NullPool)
        pipeline = PIPELINES[NAME, CURRENT[NAME]]
        parameters = Parameters("UTC", timedelta(hours=1), "1-day")
        generations.create(stack.kafka, engine, pipeline, parameters, reason="bench", created_by="bench")
        preload(Ground(stack.kafka, pipeline, "replay"), events)
        made = building.begin(stack.kafka, engine, Request(NAME, "bench", "bench"))
        started, cpu, memory = time.perf_counter(), 0.0, 0.0
        before: list[float] = []
        for pieces in building.slices(made):
            for piece in pieces:
                begun, of_slice, peak = in_child(_run, stack.kafka, url, made.number, piece, folder)
                before.append(begun)
                cpu += of_slice
                memory = max(memory, peak)
        seconds = time.perf_counter() - started
    return [
        Figure(f"replay of {events:,} events, one slice at a time", events / seconds, "events/s"),
        at_least("replay, per CPU-second of a core", events / cpu, "events", TARGET),
        Figure("replay: CPU-seconds of a process before its slice", sum(before) / len(before), "s"),
        Figure("replay: memory of a slice at most", memory, "MiB"),
    ]


def _prepared(stack: Embedded) -> str:
    shown = stack.postgres(databases.RESULTS, databases.WRITER).set(drivername="postgresql+psycopg2")
    url = shown.render_as_string(hide_password=False)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ELECTRORED_")}
    environment |= {
        "ELECTRORED_KAFKA_BOOTSTRAP": stack.bootstrap,
        "ELECTRORED_SCHEMA_REGISTRY_URL": stack.registry_url,
        "ELECTRORED_RESULTS_DB_URL": url,
        "ELECTRORED_LOG_LEVEL": "WARNING",
    }
    subprocess.run([sys.executable, "-m", "contracts", "setup"], cwd=ROOT, env=environment, check=True)
    return url


def _run(
    kafka: KafkaSettings, url: str, number: int, piece: Slice, folder: str
) -> tuple[float, float, float]:
    """CPU-seconds of the process before the slice, of the slice, and MiB."""
    results, begun = create_engine(url, poolclass=NullPool), time.process_time()
    building.run_slice(
        kafka, results, load(results, NAME, number), piece, Path(folder), share=1.0, stop=threading.Event()
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return begun, time.process_time() - begun, peak
