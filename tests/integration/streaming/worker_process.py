"""Runs one worker over a test's own topics: what `python -m streaming work` does over the catalogue's."""

from __future__ import annotations

import json
import signal
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings
from contracts.topics import DEAD_LETTERS, LATE_EVENTS, SOURCE_POSITIONS
from kafka_client.errors import ElectroRedError
from observability import logs
from streaming.generations import catalog
from streaming.generations.schema_ids import keep
from streaming.generations.worker import Worker
from streaming.pipelines import CURRENT, PIPELINES


def main(given: dict[str, object]) -> int:
    logs.configure(f"worker {given['slot']}")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    original = str(given["pipeline"])
    suffix = str(given["suffix"])
    found = PIPELINES[original, CURRENT[original]]
    sources = [replace(each.source, name=f"{each.source.name}-{suffix}") for each in found.inputs]
    pipeline = replace(found.over(*sources), name=f"{original}-{suffix}")
    results = create_engine(str(given["results_url"]), poolclass=NullPool)
    generation = catalog.load_live(results, pipeline.name)[0]
    worker = Worker(
        KafkaSettings(),
        pipeline,
        generation,
        int(str(given["slot"])),
        Path(str(given["state_dir"])),
        partial(keep, results),
        positions=replace(SOURCE_POSITIONS, name=f"{SOURCE_POSITIONS.name}-{suffix}"),
        late=replace(LATE_EVENTS, name=f"{LATE_EVENTS.name}-{suffix}"),
        dead=replace(DEAD_LETTERS, name=f"{DEAD_LETTERS.name}-{suffix}"),
    )
    try:
        worker.run(stop)
    except ElectroRedError as error:
        print(f"FATAL {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
