"""A worker, the sink, the API or a replay over a pipeline of a test, of which version 1 has a defect and 2 has not."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import SALES_EVENTS
from observability import logs
from streaming.engine.expressions import Amount
from streaming.engine.pipeline import Check, Pipeline
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay import build
from streaming.replay.request import Request

# What the defective version takes for impossible.
LIMIT = Decimal(10_000)
# Of the API: everything of a test runs on the same cores as its readers.
PATIENCE_SECONDS = 20


def versions(name: str, suffix: str) -> tuple[Pipeline, Pipeline]:
    """The pipeline over topics of its own: as it is wrong, and as it is right."""
    source = replace(SALES_EVENTS, name=f"{SALES_EVENTS.name}-{suffix}")
    mended = replace(PIPELINES[name, CURRENT[name]].over(source), name=f"{name}-{suffix}", version=2)
    (given,) = mended.inputs
    defect = Check("is impossible", Amount("amount").absolute < LIMIT)
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
        queries.PATIENCE_SECONDS = PATIENCE_SECONDS
        serve()
        return
    kafka, results = KafkaSettings(), ResultsDbSettings()
    if role == "replay":
        replay(kafka, results, mended.name, Path(folder))
        return
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if role == "worker":
        from streaming.generations import supervisor

        supervisor.run(kafka, results, mended.name, 0, Path(folder), stop)
    else:
        from streaming.sink import postgres

        postgres.run(kafka, results, stop)


def replay(kafka: KafkaSettings, settings: ResultsDbSettings, pipeline: str, folder: Path) -> None:
    """The whole replay, at low priority."""
    build.be_nice()
    results = create_engine(settings.results_db_url.get_secret_value(), poolclass=NullPool)
    generation = build.begin(kafka, results, Request(pipeline, "a test", "test"))
    for pieces in build.slices(generation):
        for piece in pieces:
            build.run_slice(kafka, results, generation, piece, folder, share=1.0, stop=threading.Event())
    build.finish(results, generation)


if __name__ == "__main__":
    main(*sys.argv[1:])
