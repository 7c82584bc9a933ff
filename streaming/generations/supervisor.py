"""A worker process: all live generations of one pipeline, started and stopped as the table lists them.

A candidate or standby that keeps failing, for any reason, is marked failed and stopped: the active one goes on. If the
active one fails the process ends. The local store of a retired generation is deleted.
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
from streaming.generations.following import ThreadTarget, supervise_threads
from streaming.generations.schema_ids import keep
from streaming.generations.worker import Worker
from streaming.pipelines import PIPELINES
from streaming.results_db import connect, retried

# A building one is run by slices until it is complete.
RUN_STATES = ("candidate", "active", "standby")
# Between attempts at a generation that is not served: a fenced producer, for example, does not make it fail.
AGAIN_SECONDS = (1.0, 5.0, 15.0, 30.0)
# A failure after so long counts as the first: a standby is kept for days.
STEADY_SECONDS = 300.0

_log = logs.get(__name__)


def run(
    kafka: KafkaSettings,
    results: ResultsDbSettings,
    pipeline: str,
    instance_id: int | str,
    state_dir: Path,
    stop: threading.Event,
    lineage: Emitter = NULL_EMITTER,
) -> None:
    """Run until `stop`. Raises Fatal if there is no generation to run, or what ended the active one."""
    engine = connect(results, f"electrored-worker-{pipeline}")
    barriers = Barriers(engine)

    unknown: set[int] = set()

    def wanted() -> dict[int, ThreadTarget]:
        live = [one for one in load_live(engine, pipeline) if one.state in RUN_STATES]
        return {one.number: thread_target(one) for one in _known(live, unknown)}

    def thread_target(generation: Generation) -> ThreadTarget:
        def run(left: threading.Event) -> None:
            _keep_working(engine, generation, lambda: work(generation, left), left)
            # After `stop` the next start reuses the store.
            if not stop.is_set():
                now = retried(lambda: load(engine, pipeline, generation.number), left)
                if now.state not in LIVE:
                    stores.sweep(state_dir, pipeline, instance_id, lambda number: number == now.number)

        return run

    def work(generation: Generation, left: threading.Event) -> None:
        steps = worker(retried(lambda: with_rules(engine, generation), left), left)
        job = partial(lineage_of.worker, PIPELINES[pipeline, generation.version], generation.number)
        with lineage.run(job, steps.report):
            steps.run(left)

    def worker(generation: Generation, left: threading.Event) -> Worker:
        def kept_ids(subject: str, schema_id: int | None) -> frozenset[int]:
            return retried(lambda: keep(engine, subject, schema_id), left)

        of_version = PIPELINES[pipeline, generation.version]
        return Worker(kafka, of_version, generation, instance_id, state_dir, kept_ids, barriers=barriers)

    live = retried(lambda: load_live(engine, pipeline), stop)
    _check(live, pipeline)
    # Before any thread is started, so no store is open.
    known = {one.number for one in live}
    stores.sweep(state_dir, pipeline, instance_id, lambda number: number not in known)
    barriers.start()
    try:
        supervise_threads(wanted, stop)
    finally:
        WAITS.end("version")
        barriers.stop()
        engine.dispose()


def _known(generations: list[Generation], unknown: set[int]) -> list[Generation]:
    """Those whose version this code has. The rest is left to other workers, and reported as a wait.

    Raises Fatal if the active one is of the rest. `unknown`: numbers that were logged already.
    """
    known = [one for one in generations if (one.pipeline, one.version) in PIPELINES]
    rest = [one for one in generations if one not in known]
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
            f"{pipeline} has no generation to run: is the name right, did `python -m streaming init` run, "
            "are all of them retired?"
        )
    if not any(one.state == "active" for one in live):
        states = ", ".join(f"g{one.number} {one.state}" for one in live)
        raise Fatal(f"{pipeline} has no active generation, only {states}")


def _keep_working(
    results: Engine, generation: Generation, work: Callable[[], None], stop: threading.Event
) -> None:
    """Do the work until `stop`; retry it if it fails, and after the last attempt mark the generation failed.

    Raises what ended the work of the active one.
    """

    def on_failure(error: Exception, failures: int) -> bool:
        # Any exception: a new version may have a defect, and its result is not served yet.
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
    """Mark the generation failed, unless it has become the active one meanwhile."""
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
