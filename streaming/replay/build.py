"""Building a generation beside the live one: the same combine and merge, run over the whole log up to a target.

A slice is one partition of a step. It keeps its progress where a live worker does, so a killed slice resumes, and when
all are done the workers resume from there. All windows are computed; a range only limits where the result may differ.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.datasets import KAFKA, Dataset
from contracts.settings import KafkaSettings
from contracts.tables import generations
from kafka_client import clients as connect
from kafka_client.offsets import ends
from observability import logs
from observability.progress_report import ProgressReport
from streaming.engine.loop import REPLAY, Loop
from streaming.generations.catalog import Generation, check_kept, lay_out, load, load_live, with_rules
from streaming.generations.schema_ids import keep, keep_inputs
from streaming.generations.worker import COLLECT_SECONDS, Worker
from streaming.pipelines import PIPELINES
from streaming.replay.advisory_lock import is_worked_on, working_on
from streaming.replay.errors import RequestRefused
from streaming.replay.failpoints import failpoint
from streaming.replay.request import Range, Request

# Below live traffic.
NICE = 10
# Of the time; a slice sleeps for the remainder, in favour of live traffic.
SHARE = 1.0
# A slice waits this long without progress, for example for a broker; restoring state is progress.
STALLED_SECONDS = 120.0
REPORT_SECONDS = 1.0

_log = logs.get(__name__)


@dataclass(frozen=True)
class Slice:
    """One partition of a step: of an input's combine, or of merge (`number` is None)."""

    step: str
    number: int | None
    partition: int

    def __str__(self) -> str:
        return f"{self.step}.{self.partition}"


@dataclass(frozen=True)
class Done:
    """How far a slice has come, in events and in offsets of its partition, of which some are not events.

    `restored`: records that this run read back. `written`: records that it committed, by topic. It would resume from
    `next_offset`.
    """

    events: int
    offsets: int
    of_offsets: int
    next_offset: int = 0
    # Of this run, while the rest is of the slice, so they do not compare.
    restored: int = field(default=0, compare=False)
    written: Mapping[str, int] = field(default_factory=dict, compare=False)

    def report(self, step: str, partition: int) -> ProgressReport:
        """The lineage report of the slice's run."""
        return ProgressReport(
            counts={step: {"events": self.events, "restored": self.restored}},
            checkpoints={step: {partition: self.next_offset}},
            rows={Dataset(KAFKA, (name,)): count for name, count in self.written.items()},
        )


def begin(kafka: KafkaSettings, results: Engine, request: Request) -> Generation:
    """The requested generation, in state `building`: a new one, or what a dead job left of the same request.

    A candidate of the same request is returned as it is, to be compared again; one of the same backfill with its range
    extended. Raises RequestRefused for a bad request, and while another replay of the pipeline is building or a
    candidate.
    """
    pipeline = request.check()
    live = load_live(results, request.pipeline)
    active = next((one for one in live if one.state == "active"), None)
    if active is None:
        raise RequestRefused(
            f"{request.pipeline} has no active generation that a replay could be compared with"
        )
    logs = [each.source for each in pipeline.inputs]
    check_kept(kafka, logs, whole=logs)
    # Its zone rules apply to the compared windows, and to the replay unless a zone is named.
    active = with_rules(results, active)
    request = request.within(active.parameters)
    if (left := _left(results, request, active)) is not None:
        return left
    parameters = request.parameters(active.parameters)
    with results.connect() as connection:
        newest = connection.scalar(
            select(func.max(generations.c.number)).where(generations.c.pipeline == request.pipeline)
        )
    number, topics, starts = lay_out(kafka, pipeline, after=int(newest or 0))
    keep_inputs(kafka, results, pipeline)
    failpoint("replay.topics")
    row = {
        "pipeline": pipeline.name,
        "number": number,
        "version": pipeline.version,
        "state": "building",
        "parameters": parameters.to_json(),
        "zone_rules": parameters.windows.zone.to_json(),
        "topics": topics,
        "start_offsets": starts,
        "target_offsets": _targets(kafka, [(each.source.name, topics) for each in pipeline.inputs]),
        "reason": request.reason.strip(),
        "created_by": request.created_by,
        "created_at": datetime.now(UTC),
        "range_start": request.range and request.range.start,
        "range_end": request.range and request.range.end,
        "backfill": request.backfill,
    }
    try:
        with results.begin() as connection:
            connection.execute(insert(generations).values(row))
    except IntegrityError as error:
        raise RequestRefused(f"another replay of {pipeline.name} began at the same moment") from error
    failpoint("replay.begun")
    _log.info("replay begins", generation=f"{pipeline.name}.g{number}", reason=request.reason)
    return load(results, pipeline.name, number)


def slices(generation: Generation) -> tuple[list[Slice], list[Slice]]:
    """The slices of combine, which may run in parallel; and those of merge, to run when all of the former are done."""
    pipeline = PIPELINES[generation.pipeline, generation.version]
    combines = [
        Slice(pipeline.step(each), number, partition)
        for number, each in enumerate(pipeline.inputs)
        for partition in range(generation.topics[each.source.name].partitions)
    ]
    partials = generation.names.partials.name
    return combines, [Slice("merge", None, p) for p in range(generation.topics[partials].partitions)]


def find_slice(generation: Generation, step: str, partition: int) -> Slice:
    """The slice of that name. Raises RequestRefused."""
    for one in (piece for pieces in slices(generation) for piece in pieces):
        if (one.step, one.partition) == (step, partition):
            return one
    raise RequestRefused(f"{generation} has no slice {step}.{partition}")


def run_slice(
    kafka: KafkaSettings,
    results: Engine,
    generation: Generation,
    piece: Slice,
    state_dir: Path,
    *,
    share: float,
    stop: threading.Event,
    on_progress: Callable[[Done], None] = lambda _: None,
) -> Done:
    """Run a slice to its target; one that is done already ends at once. Works `share` of the time and sleeps otherwise.

    Raises RequestRefused if the generation is not being built any more, Fatal as a worker does.
    """
    with working_on(results, generation.pipeline, generation.number):
        if load(results, generation.pipeline, generation.number).state != "building":
            raise RequestRefused(f"{generation} is not being built any more")
        generation = with_rules(results, generation)
        pipeline = PIPELINES[generation.pipeline, generation.version]
        # A transactional id of its own: a second run of the same slice fences the first.
        instance_id, kept_ids = f"slice{piece.partition}", partial(keep, results)
        worker = Worker(kafka, pipeline, generation, instance_id, state_dir, kept_ids, commit_policy=REPLAY)
        worker.check()
        if piece.number is None:
            loop = worker.merge()
            topic = generation.names.partials.name
            target = ends(connect.admin(kafka), topic, [piece.partition])[piece.partition]
            start = 0
        else:
            loop = worker.combine(piece.number, is_live=False)
            place = generation.first_input(pipeline, piece.number) + piece.partition
            target, start = generation.target_offsets[place], generation.start_offsets[place]
        try:
            if piece.number is not None:
                # Nothing behind the target, where live workers will be.
                loop.hold()
                loop.read_to({piece.partition: target})
            with _collecting_seldom():
                done = _drive(loop, piece.partition, start, target, share, stop, on_progress)
        finally:
            loop.close()
        if piece.number is None:
            # The worker restores its own store from the topic.
            worker.forget()
        return done


def finish(results: Engine, generation: Generation) -> Generation:
    """building → candidate, after the last slice; from then on workers keep it up to date. Raises RequestRefused."""
    of = generations.c
    with results.begin() as connection:
        # Workers resume a candidate from its progress, and a running slice would commit beside them.
        if is_worked_on(connection, generation.pipeline, generation.number):
            raise RequestRefused(f"a slice of {generation} is still running")
        connection.execute(
            update(generations)
            .where(of.pipeline == generation.pipeline, of.number == generation.number, of.state == "building")
            .values(state="candidate", candidate_at=datetime.now(UTC))
        )
    failpoint("replay.finished")
    now = load(results, generation.pipeline, generation.number)
    if now.state != "candidate":
        raise RequestRefused(f"{generation} is {now.state}, it cannot become a candidate")
    return now


def _drive(
    loop: Loop,
    partition: int,
    start: int,
    target: int,
    share: float,
    stop: threading.Event,
    on_progress: Callable[[Done], None],
) -> Done:
    loop.assign([partition])
    reached, restored, moved_at, reported_at = -1, 0, time.monotonic(), 0.0
    collected_at = moved_at
    while True:
        worked_from = time.process_time()
        loop.run_once()
        now = time.monotonic()
        if partition in loop.ready:
            at = loop.consumed(partition)
            done = _done(loop, partition, min(at, target) - start, target - start)
            if at >= target:
                loop.commit()
                # An aborted commit is read again.
                if not loop.step.pending() and loop.consumed(partition) >= target:
                    done = _done(loop, partition, target - start, target - start)
                    on_progress(done)
                    return done
            if now >= reported_at + REPORT_SECONDS:
                on_progress(done)
                reported_at = now
            if at > reached:
                reached, moved_at = at, now
        elif loop.restored > restored:
            restored, moved_at = loop.restored, now
        if now > moved_at + STALLED_SECONDS:
            raise RequestRefused(
                f"{loop.flow} partition {partition} stands at {reached} of {target} since {STALLED_SECONDS:.0f} s: is "
                "Kafka there, and is no transaction left open?"
            )
        if now > collected_at + COLLECT_SECONDS:
            gc.collect()
            collected_at = now
        worked = time.process_time() - worked_from
        if stop.wait(worked * (1 / share - 1)):
            raise RequestRefused(
                f"{loop.flow} partition {partition} was stopped at {reached} of {target}; the same request resumes it"
            )


def _done(loop: Loop, partition: int, offsets: int, of_offsets: int) -> Done:
    progress = loop.step.progress(partition)
    return Done(progress.events, offsets, of_offsets, progress.next_offset, loop.restored, dict(loop.written))


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Reference cycles are few, and a collection visits every message of a poll."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def be_nice() -> None:
    """Lower the process's priority below live traffic; idempotent."""
    os.setpriority(os.PRIO_PROCESS, 0, NICE)


def _left(results: Engine, request: Request, active: Generation) -> Generation | None:
    """The generation that a run of the same request left, or None. Raises RequestRefused for another request's."""
    of = generations.c
    with results.begin() as connection:
        row = connection.execute(
            select(generations)
            .where(of.pipeline == request.pipeline, of.state.in_(("building", "candidate")))
            .with_for_update()
        ).one_or_none()
        if row is None:
            return None
        what = f"g{row.number} of {request.pipeline}, {row.reason!r} by {row.created_by},"
        if request.backfill is not None and row.backfill == request.backfill and request.range is not None:
            _extend(connection, row, request.range)
        elif row.state == "candidate" and not _is_same(row, request, active):
            raise RequestRefused(f"{what} waits: promote or retire it first")
        elif is_worked_on(connection, row.pipeline, row.number):
            raise RequestRefused(f"{what} is being built right now")
        elif not _is_same(row, request, active):
            raise RequestRefused(
                f"{what} is being built: the same request again resumes it, or retire it first"
            )
    return load(results, request.pipeline, row.number)


def _is_same(row: Row[Any], request: Request, active: Generation) -> bool:
    requested, parameters = request.range, request.parameters(active.parameters)
    return (
        # The nightly check retires what it created.
        (row.created_by, row.reason) == (request.created_by, request.reason.strip())
        and row.version == request.check().version
        and row.parameters == parameters.to_json()
        and row.zone_rules in (None, parameters.windows.zone.to_json())
        and (row.range_start, row.range_end)
        == ((requested.start, requested.end) if requested else (None, None))
    )


def _extend(connection: Connection, row: Row[Any], more: Range) -> None:
    of = generations.c
    connection.execute(
        update(generations)
        .where(of.pipeline == row.pipeline, of.number == row.number)
        .values(
            range_start=min(row.range_start or more.start, more.start),
            range_end=max(row.range_end or more.end, more.end),
        )
    )


def _targets(kafka: KafkaSettings, inputs: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, int]:
    """The ends of the logs now; the partitions of all inputs are numbered through."""
    client = connect.admin(kafka)
    targets: list[int] = []
    for topic, topics in inputs:
        of_topic = ends(client, topic, range(topics[topic]["partitions"]))
        targets += [of_topic[partition] for partition in sorted(of_topic)]
    return {str(number): offset for number, offset in enumerate(targets)}
