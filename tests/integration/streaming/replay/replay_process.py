"""A whole replay, or a barrier, in a process of its own, killed by a failpoint or a test at a set place."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings
from contracts.topics import SALES_EVENTS
from streaming.engine import loop
from streaming.engine.loop import CommitPolicy
from streaming.engine.step import OutRecord
from streaming.engine.transactions import Delivered, Transactions
from streaming.generations import worker
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay import build
from streaming.replay.barrier import hold_at_barrier
from streaming.replay.request import Request

# A slice of a test's events makes several transactions.
POLL_EVENTS, PACE = 50, CommitPolicy(0.5, 100, 0, 0.0)


@dataclass
class Death:
    """Of this process in the slices of a step, after so many transactions: in the middle of the next, or right away."""

    step: str
    transactions: int
    is_within_next: bool


class Deadly(Transactions):
    death: Death
    committed = 0

    def commit(
        self,
        records: Sequence[OutRecord],
        offsets: Mapping[tuple[str, int], int],
        group_metadata: object,
        oldest_micros: int | None = None,
        metadata: str = "",
    ) -> Delivered:
        delivered = super().commit(records, offsets, group_metadata, oldest_micros, metadata)
        Deadly.committed += self._flow.endswith(f".{self.death.step}")
        if not self.death.is_within_next:
            self._die()
        return delivered

    def _retried(self, call: Callable[[float], None], patience: float = 60.0) -> None:
        # Records and offsets are written by then.
        if getattr(call, "__name__", "") == "commit_transaction":
            self._die()
        super()._retried(call, patience)

    def _die(self) -> None:
        if Deadly.committed == self.death.transactions:
            os.kill(os.getpid(), signal.SIGKILL)


def main(
    pipeline: str,
    suffix: str,
    results_url: str,
    folder: str,
    death: Mapping[str, object] | None = None,
    holding: Sequence[int] = (),
) -> None:
    original = PIPELINES[pipeline, CURRENT[pipeline]]
    own = replace(
        original.over(replace(SALES_EVENTS, name=f"{SALES_EVENTS.name}-{suffix}")),
        name=f"{pipeline}-{suffix}",
        version=1,
    )
    PIPELINES[own.name, own.version] = own
    CURRENT[own.name] = own.version
    loop.POLL_EVENTS = POLL_EVENTS
    vars(build)["REPLAY"] = PACE
    kafka, results = KafkaSettings(), create_engine(results_url, poolclass=NullPool)
    if holding:
        with hold_at_barrier(kafka, results, own.name, holding, 600.0):
            return
    if death is not None:
        Deadly.death = Death(**death)  # type: ignore[arg-type]
        vars(worker)["Transactions"] = Deadly
    generation = build.begin(kafka, results, Request(own.name, "a test", "test"))
    for pieces in build.slices(generation):
        for piece in pieces:
            build.run_slice(
                kafka, results, generation, piece, Path(folder), share=1.0, stop=threading.Event()
            )
    build.finish(results, generation)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
