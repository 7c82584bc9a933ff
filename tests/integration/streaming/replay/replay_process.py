"""A whole replay in a process of its own, which a failpoint or a test may kill anywhere."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings
from contracts.topics import SALES_EVENTS
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay import building
from streaming.replay.request import Request


def main(pipeline: str, suffix: str, results_url: str, folder: str) -> None:
    original = PIPELINES[pipeline, CURRENT[pipeline]]
    own = replace(
        original.over(replace(SALES_EVENTS, name=f"{SALES_EVENTS.name}-{suffix}")),
        name=f"{pipeline}-{suffix}",
    )
    PIPELINES[own.name, own.version] = own
    CURRENT[own.name] = own.version
    kafka, results = KafkaSettings(), create_engine(results_url, poolclass=NullPool)
    generation = building.begin(kafka, results, Request(own.name, "a test", "test"))
    for pieces in building.slices(generation):
        for piece in pieces:
            building.run_slice(
                kafka, results, generation, piece, Path(folder), share=1.0, stop=threading.Event()
            )
    building.finish(results, generation)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
