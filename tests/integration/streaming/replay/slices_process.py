"""Some slices of a replay in a process of their own, which ends itself with SIGKILL around a transaction."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings
from contracts.topics import SALES_EVENTS
from streaming.engine import loop
from streaming.engine.loop import CommitPolicy
from streaming.engine.transactions import Transactions
from streaming.generations import worker
from streaming.generations.catalog import load
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay import build

# Probability per answer; a transaction has two, a slice of 200 events up to ten transactions.
DEADLY = 0.1


class Deadly(Transactions):
    """Dies before or after the broker's answer: with records written, offsets sent, or everything committed."""

    chance: random.Random

    def _retried(self, *args: Any, **more: Any) -> None:
        self._die()
        super()._retried(*args, **more)
        self._die()

    def _die(self) -> None:
        if self.chance.random() < DEADLY / 2:
            os.kill(os.getpid(), signal.SIGKILL)


def main(
    pipeline: str,
    suffix: str,
    results_url: str,
    folder: str,
    number: int,
    places: list[str],
    seed: int,
    deadly: bool,
) -> None:
    original = PIPELINES[pipeline, CURRENT[pipeline]]
    own = replace(
        original.over(replace(SALES_EVENTS, name=f"{SALES_EVENTS.name}-{suffix}")),
        name=f"{pipeline}-{suffix}",
        version=1,
    )
    PIPELINES[own.name, own.version] = own
    chance = Deadly.chance = random.Random(seed)
    if deadly:
        vars(worker)["Transactions"] = Deadly
    # Batches of any size: of a poll, and of a transaction.
    loop.POLL_EVENTS = chance.choice([7, 50, 1_000])
    vars(build)["REPLAY"] = CommitPolicy(0.5, chance.choice([20, 100, 5_000]), 0, 0.0)
    kafka, results = KafkaSettings(), create_engine(results_url, poolclass=NullPool)
    generation = load(results, own.name, number)
    stop = threading.Event()
    for pieces in build.slices(generation):
        for piece in pieces:
            if str(piece) in places:
                build.run_slice(kafka, results, generation, piece, Path(folder), share=1.0, stop=stop)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
