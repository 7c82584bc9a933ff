"""A worker, the sink or the API over a test's own pipeline, of which version 1 has a defect that version 2 has not."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl

from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import SALES_EVENTS
from observability import logs
from streaming.engine.pipeline import Check, Pipeline
from streaming.pipelines import CURRENT, PIPELINES

# What the defective version takes for impossible.
LIMIT = Decimal(10_000)


def versions(name: str, suffix: str) -> tuple[Pipeline, Pipeline]:
    """The pipeline over topics of its own: as it is wrong, and as it is right."""
    source = replace(SALES_EVENTS, name=f"{SALES_EVENTS.name}-{suffix}")
    mended = replace(PIPELINES[name, CURRENT[name]].over(source), name=f"{name}-{suffix}", version=2)
    (given,) = mended.inputs
    defect = Check("is impossible", pl.col("amount").abs() < LIMIT, ("amount",))
    return replace(mended, version=1, inputs=(replace(given, checks=(*given.checks, defect)),)), mended


def main(role: str, name: str, suffix: str, folder: str) -> None:
    logs.configure(role)
    broken, mended = versions(name, suffix)
    PIPELINES[mended.name, 1], PIPELINES[mended.name, 2] = broken, mended
    CURRENT[mended.name] = 2
    if role == "api":
        from api import queries
        from api.__main__ import serve

        queries.TOP_SALES.pipeline = mended.name
        serve()
        return
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    kafka, results = KafkaSettings(), ResultsDbSettings()
    if role == "worker":
        from streaming import working

        working.run(kafka, results, mended.name, 0, Path(folder), stop)
    else:
        from streaming.sink import postgres

        postgres.run(kafka, results, stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
