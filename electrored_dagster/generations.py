"""Generations as runs of Dagster's handle them: built in slices, compared when they have caught up, told as metadata.

Nothing heavy is imported with this module: the code server loads it, and only runs need the engine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, NullPool, func, select

from contracts import tables
from contracts.calendar import Calendar
from contracts.settings import KafkaSettings, ReplaySettings, ResultsDbSettings
from contracts.topics import TOP_SALES_BY_CITY, TOP_SALESMAN_BY_COUNTRY
from contracts.zones import ZoneRules
from electrored_dagster.metadata import settings
from lineage.emitter import NULL_EMITTER, ProgressCell
from lineage.model import Job

if TYPE_CHECKING:
    from streaming.replay.build import Done
    from streaming.replay.difference import Difference
    from streaming.replay.request import Range

# A candidate reads what came in while it was built, faster than that came in.
CAUGHT_UP_SECONDS = 600.0
TOLD_SECONDS = 10.0
# Older windows are computed again by the job, whose range is free.
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
# The pipelines with windows, and where their rows are.
TABLES = {TOP_SALES_BY_CITY.name: "city_totals", TOP_SALESMAN_BY_COUNTRY.name: "salesman_totals"}


@dataclass(frozen=True)
class GenerationRef:
    """A generation, as one step hands it to the next."""

    pipeline: str
    number: int


@dataclass(frozen=True)
class SliceRef:
    """A slice of it."""

    made: GenerationRef
    step: str
    partition: int

    @property
    def name(self) -> str:
        return f"{self.step}.{self.partition}"

    @property
    def mapping_key(self) -> str:
        return self.name.replace(".", "_").replace("-", "_")


@dataclass(frozen=True)
class SliceResult:
    """What a slice came to in this run."""

    events: int
    seconds: float


@contextmanager
def connected() -> Iterator[tuple[KafkaSettings, Engine, ReplaySettings]]:
    """Kafka and the results database, in the role that may write it. Raises NotSet."""
    from streaming.results_db import connect

    results = connect(settings(ResultsDbSettings), "replay", NullPool)
    try:
        yield settings(KafkaSettings), results, settings(ReplaySettings)
    finally:
        results.dispose()


def windows(results: Engine, pipeline: str, first: str, last: str) -> Range:
    """The windows that hold these civil days, by the calendar and zone of the active generation."""
    from streaming.generations.catalog import load_live
    from streaming.replay.errors import RequestRefused
    from streaming.replay.request import Range

    active = next((found for found in load_live(results, pipeline) if found.state == "active"), None)
    if active is None:
        raise RequestRefused(f"{pipeline} has no active generation that a replay could be compared with")
    calendar = active.parameters.windows
    days = sorted(date.fromisoformat(day) for day in (first, last))
    return Range(calendar.window_of(days[0]).start, calendar.window_of(days[1]).end)


def pieces(results: Engine, made: GenerationRef, *, merge: bool) -> list[SliceRef]:
    """The slices of combine, or of merge; none of a generation that is built already."""
    from streaming.generations.catalog import load
    from streaming.replay.build import slices

    generation = load(results, made.pipeline, made.number)
    if generation.state != "building":
        return []
    return [SliceRef(made, found.step, found.partition) for found in slices(generation)[1 if merge else 0]]


def run_piece(
    kafka: KafkaSettings,
    results: Engine,
    replay: ReplaySettings,
    piece: SliceRef,
    tell: Callable[[dict[str, Any]], None],
    emitted: Callable[[Callable[[], Job], ProgressCell], AbstractContextManager[None]] = NULL_EMITTER.run,
) -> SliceResult:
    """Run the slice to its end. `tell` is given its progress now and then, `told` tells lineage of it.

    Raises what `run_slice` raises.
    """
    from streaming import lineage as lineage_of
    from streaming.generations.catalog import load
    from streaming.pipelines import PIPELINES
    from streaming.replay import build

    generation = load(results, piece.made.pipeline, piece.made.number)
    progress, saying, ended = Progress(piece.name, tell), ProgressCell(), threading.Event()

    def note(done: Done) -> None:
        saying.say(done.facts(piece.step, piece.partition))
        progress.note(done)
        # The executor's process: without it nobody waits for this slice, which would only keep others from it.
        run = parent_process()
        if run is not None and not run.is_alive():
            ended.set()

    pipeline = PIPELINES[generation.pipeline, generation.version]
    with emitted(partial(lineage_of.replay, pipeline, generation.number), saying):
        done = build.run_slice(
            kafka,
            results,
            generation,
            build.find_slice(generation, piece.step, piece.partition),
            replay.state_dir / "state",
            share=replay.replay_share or build.SHARE,
            stop=ended,
            on_progress=note,
        )
    return SliceResult(done.events, round(progress.seconds, 3))


class Progress:
    """How a slice gets on: every ten seconds, and at its end."""

    def __init__(self, name: str, tell: Callable[[dict[str, Any]], None]) -> None:
        self._name = name
        self._tell = tell
        self._began = self._told_at = time.monotonic()
        self._first: Done | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def note(self, done: Done) -> None:
        # What an earlier run had done is no speed of this one.
        first = self._first = self._first or done
        now = time.monotonic()
        at_end = done.offsets >= done.of_offsets
        if not at_end and now < self._told_at + TOLD_SECONDS:
            return
        self._told_at = now
        seconds = max(self.seconds, 0.001)
        offsets_a_second = (done.offsets - first.offsets) / seconds
        told: dict[str, Any] = {
            "slice": self._name,
            "events": done.events,
            "done": round(done.offsets / done.of_offsets, 4) if done.of_offsets else 1.0,
            "events_per_second": round((done.events - first.events) / seconds),
        }
        if at_end:
            told["seconds_left"] = 0
        elif offsets_a_second > 0:
            told["seconds_left"] = round((done.of_offsets - done.offsets) / offsets_a_second)
        self._tell(told)


def caught_up(
    kafka: KafkaSettings, results: Engine, made: GenerationRef, waiting: Callable[[str], None]
) -> Difference:
    """The difference of a candidate, once workers have brought it to where the active one is. Raises RequestRefused."""
    from streaming.replay import catch_up as patience
    from streaming.replay.barrier import held

    return patience.caught_up(
        kafka,
        results,
        made.pipeline,
        made.number,
        hold=held,
        seconds=CAUGHT_UP_SECONDS,
        waiting=waiting,
    )


def proven(
    kafka: KafkaSettings,
    results: Engine,
    replay: ReplaySettings,
    pipeline: str,
    by: str,
    tell: Callable[[str], None],
    emitted: Callable[[Callable[[], Job], ProgressCell], AbstractContextManager[None]] = NULL_EMITTER.run,
) -> Difference:
    """The difference that a replay of what is active now makes; the replay is taken away again.

    `emitted` emits the lineage of its slices.
    Raises RequestRefused while another replay of the pipeline is under way or waits. What an earlier call left when it
    was killed goes first.
    """
    from streaming.generations.catalog import load_live
    from streaming.replay import build, retirement
    from streaming.replay.request import Request

    live = load_live(results, pipeline)
    version = next((found.version for found in live if found.state == "active"), None)
    for number in _made_by(results, pipeline, by):
        retirement.retire(kafka, results, pipeline, number)
        tell(f"{pipeline} g{number} was left by an earlier check, and is retired")
    begun = build.begin(kafka, results, Request(pipeline, "is a replay identical?", by, version=version))
    made = GenerationRef(pipeline, begun.number)
    try:
        build.be_nice()
        for merge in (False, True):
            for piece in pieces(results, made, merge=merge):
                worked = run_piece(
                    kafka, results, replay, piece, lambda progress: tell(str(progress)), emitted
                )
                tell(f"{piece.name}: {worked.events:,} events in {worked.seconds:.1f} s")
        build.finish(results, begun)
        return caught_up(kafka, results, made, tell)
    finally:
        retirement.retire(kafka, results, pipeline, made.number)


def _made_by(results: Engine, pipeline: str, by: str) -> list[int]:
    of = tables.generations.c
    wanted = select(of.number).where(
        of.pipeline == pipeline, of.created_by == by, of.state.in_(("building", "candidate"))
    )
    with results.connect() as connection:
        return list(connection.scalars(wanted))


def replaying(results: Engine, but: str) -> list[str]:
    """Pipelines of which a replay is under way or waits to be promoted, whoever asked for it but one."""
    of = tables.generations.c
    wanted = select(of.pipeline).where(of.state.in_(("building", "candidate")), of.created_by != but)
    with results.connect() as connection:
        return sorted(set(connection.scalars(wanted)))


def window_days(results: Engine, pipeline: str, now: datetime) -> list[str]:
    """The first civil day of every window from the earliest result to now, as the active generation counts them.

    None from before 2020: a single sale of 1900 would make more days than Dagster can show.
    """
    found = tables.metadata.tables[TABLES[pipeline]]
    of = tables.generations.c
    with results.connect() as connection:
        active = connection.execute(
            select(of.number, of.parameters, of.zone_rules).where(
                of.pipeline == pipeline, of.state == "active"
            )
        ).one_or_none()
        if active is None:
            return []
        first = connection.scalar(
            select(func.min(found.c.window_start)).where(found.c.generation == active.number)
        )
    if first is None:
        return []
    of_active = active.parameters
    rules = None if active.zone_rules is None else ZoneRules.from_json(active.zone_rules)
    return Calendar(of_active["calendar"], of_active["time_zone"], rules).days(max(first, EARLIEST), now)
