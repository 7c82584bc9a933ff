"""A worker process: all generations of one pipeline that live, each in a slot of its own, followed as the table says.

A candidate or standby that keeps failing, for whatever reason, is marked so and left: the active one goes on. If the
active one fails the process ends. The local store of a generation that is no more is deleted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine, update

from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.tables import generations
from kafka_client.errors import Fatal
from lineage.emitter import NULL_EMITTER, Emitter
from observability import logs
from observability.supervision import supervise
from observability.waits import WAITS
from streaming import lineage as lineage_of
from streaming.generations import stores
from streaming.generations.barriers import Barriers
from streaming.generations.catalog import LIVE, Generation, load, load_live, with_rules
from streaming.generations.following import Follower, follow
from streaming.generations.schema_ids import keep
from streaming.generations.worker import Worker
from streaming.pipelines import PIPELINES
from streaming.results_db import connect, retried

# A building one is the slices' until it is whole.
FOLLOWED = ("candidate", "active", "standby")
# Between attempts at a generation that nobody reads yet: a fenced producer, say, is no reason to give it up.
AGAIN_SECONDS = (1.0, 5.0, 15.0, 30.0)
# What failed after so long had begun well, and is tried as if for the first time: a standby is kept for days.
STEADY_SECONDS = 300.0

_log = logs.get(__name__)


def run(
    kafka: KafkaSettings,
    results: ResultsDbSettings,
    pipeline: str,
    slot: int | str,
    state_dir: Path,
    stop: threading.Event,
    lineage: Emitter = NULL_EMITTER,
) -> None:
    """Until told to stop. Raises Fatal if there is nothing to work on, or what ended the active generation."""
    engine = connect(results, f"electrored-worker-{pipeline}")
    barriers = Barriers(engine)

    unknown: set[int] = set()

    def wanted() -> dict[int, Follower]:
        live = [found for found in load_live(engine, pipeline) if found.state in FOLLOWED]
        return {found.number: follower(found) for found in _known(live, unknown)}

    def follower(generation: Generation) -> Follower:
        def run(left: threading.Event) -> None:
            _kept_running(engine, generation, lambda: work(generation, left), left)
            # Told to stop, a worker will want its store again.
            if not stop.is_set():
                now = retried(lambda: load(engine, pipeline, generation.number), left)
                if now.state not in LIVE:
                    stores.sweep(state_dir, pipeline, slot, lambda number: number == now.number)

        return run

    def work(generation: Generation, left: threading.Event) -> None:
        made = worker(retried(lambda: with_rules(engine, generation), left), left)
        job = partial(lineage_of.worker, PIPELINES[pipeline, generation.version], generation.number)
        with lineage.run(job, made.facts):
            made.run(left)

    def worker(generation: Generation, left: threading.Event) -> Worker:
        def kept_ids(subject: str, schema_id: int | None) -> frozenset[int]:
            return retried(lambda: keep(engine, subject, schema_id), left)

        found = PIPELINES[pipeline, generation.version]
        return Worker(kafka, found, generation, slot, state_dir, kept_ids, barriers=barriers)

    live = retried(lambda: load_live(engine, pipeline), stop)
    _check(live, pipeline)
    # Before anything is followed, so none of them is open.
    known = {found.number for found in live}
    stores.sweep(state_dir, pipeline, slot, lambda number: number not in known)
    barriers.start()
    try:
        follow(wanted, stop)
    finally:
        WAITS.end("version")
        barriers.stop()
        engine.dispose()


def _known(generations: list[Generation], unknown: set[int]) -> list[Generation]:
    """Those that this code can work on. Others may be able to work on the rest: it is left alone, which is a wait.

    Raises Fatal if the active one is of the rest. `unknown` are numbers that were logged.
    """
    known = [found for found in generations if (found.pipeline, found.version) in PIPELINES]
    rest = [found for found in generations if found not in known]
    for generation in rest:
        if generation.state == "active":
            raise Fatal(_lacking(generation))
        if generation.number not in unknown:
            unknown.add(generation.number)
            _log.error("generation is left to others", reason=_lacking(generation))
    if rest:
        WAITS.begin("version", "; ".join(map(_lacking, rest)))
    else:
        WAITS.end("version")
    return known


def _lacking(generation: Generation) -> str:
    return f"{generation} needs version {generation.version} of {generation.pipeline}, which this code does not have"


def _check(live: list[Generation], pipeline: str) -> None:
    if not live:
        raise Fatal(
            f"{pipeline} has no generation to work on: is the name right, did `python -m streaming init` run, "
            "are all of them retired?"
        )
    if not any(found.state == "active" for found in live):
        states = ", ".join(f"g{found.number} {found.state}" for found in live)
        raise Fatal(f"{pipeline} has no active generation, only {states}")


def _kept_running(
    results: Engine, generation: Generation, work: Callable[[], None], stop: threading.Event
) -> None:
    """Do the work until told to stop, some times again if it fails; give the generation up at last.

    Raises what ended the work of the active one.
    """

    def on_failure(error: Exception, failures: int) -> bool:
        # A defect of a new version too: it is here that one shows, and its result is not served yet.
        now = retried(lambda: load(results, generation.pipeline, generation.number), stop)
        if now.state == "active":
            raise error
        if failures >= len(AGAIN_SECONDS):
            retried(partial(_mark_failed, results, generation, error), stop)
            return False
        _log.warning("generation is retried", generation=str(generation), reason=_reason(error))
        return True

    supervise(work, stop, AGAIN_SECONDS, on_failure, steady_seconds=STEADY_SECONDS)


def _mark_failed(results: Engine, generation: Generation, error: Exception) -> None:
    """Give the generation up, unless it has become the active one meanwhile."""
    of = generations.c
    with results.begin() as connection:
        failed = connection.execute(
            update(generations)
            .where(
                of.pipeline == generation.pipeline,
                of.number == generation.number,
                of.state.in_(("candidate", "standby")),
            )
            .values(state="failed", error=_reason(error))
        )
    if failed.rowcount:
        _log.error(
            "generation is given up", generation=str(generation), reason=_reason(error), exc_info=error
        )
    elif load(results, generation.pipeline, generation.number).state == "active":
        raise error


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Fatal) else repr(error)
