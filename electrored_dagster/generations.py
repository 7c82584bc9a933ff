"""Generations in Dagster's runs: built in slices, compared once they have caught up.

The engine is imported inside the functions: the code server loads this module, and only runs need the engine.
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

# A candidate reads what came in while it was built, faster than live traffic.
CAUGHT_UP_SECONDS = 600.0
REPORT_SECONDS = 10.0
# Older windows are computed again by the job, whose range is free.
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
# The pipelines with windows, and where their rows are.
TABLES = {TOP_SALES_BY_CITY.name: "city_totals", TOP_SALESMAN_BY_COUNTRY.name: "salesman_totals"}


@dataclass(frozen=True)
class GenerationRef:
    """A generation, as steps pass it on."""

    pipeline: str
    number: int


@dataclass(frozen=True)
class SliceRef:
    """A slice of a generation, as steps pass it on."""

    generation: GenerationRef
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
    """Events of a slice, and its seconds in this run."""

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

    active = next((one for one in load_live(results, pipeline) if one.state == "active"), None)
    if active is None:
        raise RequestRefused(f"{pipeline} has no active generation that a replay could be compared with")
    calendar = active.parameters.windows
    days = sorted(date.fromisoformat(day) for day in (first, last))
    return Range(calendar.window_of(days[0]).start, calendar.window_of(days[1]).end)


def slice_refs(results: Engine, ref: GenerationRef, *, merge: bool) -> list[SliceRef]:
    """The slices of combine, or of merge; none of a generation that is built already."""
    from streaming.generations.catalog import load
    from streaming.replay.build import slices

    generation = load(results, ref.pipeline, ref.number)
    if generation.state != "building":
        return []
    return [SliceRef(ref, one.step, one.partition) for one in slices(generation)[1 if merge else 0]]


def run_slice(
    kafka: KafkaSettings,
    results: Engine,
    replay: ReplaySettings,
    piece: SliceRef,
    on_progress: Callable[[dict[str, Any]], None],
    emitted: Callable[[Callable[[], Job], ProgressCell], AbstractContextManager[None]] = NULL_EMITTER.run,
) -> SliceResult:
    """Run the slice to its end. `on_progress` gets its progress every ten seconds, `emitted` emits its lineage.

    Raises what `run_slice` raises.
    """
    from streaming import lineage as lineage_of
    from streaming.generations.catalog import load
    from streaming.pipelines import PIPELINES
    from streaming.replay import build

    generation = load(results, piece.generation.pipeline, piece.generation.number)
    reporter, progress, ended = Progress(piece.name, on_progress), ProgressCell(), threading.Event()

    def note(done: Done) -> None:
        progress.set(done.report(piece.step, piece.partition))
        reporter.note(done)
        # The executor's process: once it is dead, this slice would only lock others out.
        run = parent_process()
        if run is not None and not run.is_alive():
            ended.set()

    pipeline = PIPELINES[generation.pipeline, generation.version]
    with emitted(partial(lineage_of.replay, pipeline, generation.number), progress):
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
    return SliceResult(done.events, round(reporter.seconds, 3))


class Progress:
    """Reports the progress of a slice: every ten seconds, and at its end."""

    def __init__(self, name: str, on_progress: Callable[[dict[str, Any]], None]) -> None:
        self._name = name
        self._on_progress = on_progress
        self._began = self._reported_at = time.monotonic()
        self._first: Done | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def note(self, done: Done) -> None:
        # The rate is of this run alone.
        first = self._first = self._first or done
        now = time.monotonic()
        at_end = done.offsets >= done.of_offsets
        if not at_end and now < self._reported_at + REPORT_SECONDS:
            return
        self._reported_at = now
        seconds = max(self.seconds, 0.001)
        offsets_a_second = (done.offsets - first.offsets) / seconds
        report: dict[str, Any] = {
            "slice": self._name,
            "events": done.events,
            "done": round(done.offsets / done.of_offsets, 4) if done.of_offsets else 1.0,
            "events_per_second": round((done.events - first.events) / seconds),
        }
        if at_end:
            report["seconds_left"] = 0
        elif offsets_a_second > 0:
            report["seconds_left"] = round((done.of_offsets - done.offsets) / offsets_a_second)
        self._on_progress(report)


def caught_up(
    kafka: KafkaSettings, results: Engine, ref: GenerationRef, waiting: Callable[[str], None]
) -> Difference:
    """The difference of a candidate, once workers have brought it to where the active one is. Raises RequestRefused."""
    from streaming.replay import catch_up
    from streaming.replay.barrier import hold_at_barrier

    return catch_up.caught_up(
        kafka,
        results,
        ref.pipeline,
        ref.number,
        hold=hold_at_barrier,
        seconds=CAUGHT_UP_SECONDS,
        waiting=waiting,
    )


def replay_and_diff(
    kafka: KafkaSettings,
    results: Engine,
    replay: ReplaySettings,
    pipeline: str,
    by: str,
    on_progress: Callable[[str], None],
    emitted: Callable[[Callable[[], Job], ProgressCell], AbstractContextManager[None]] = NULL_EMITTER.run,
) -> Difference:
    """The difference of a replay of what is active now; the replay is retired again.

    `emitted` emits the lineage of its slices. What a killed earlier call left is retired first.
    Raises RequestRefused while another replay of the pipeline is building or a candidate.
    """
    from streaming.generations.catalog import load_live
    from streaming.replay import build, retirement
    from streaming.replay.request import Request

    live = load_live(results, pipeline)
    version = next((one.version for one in live if one.state == "active"), None)
    for number in _created_by(results, pipeline, by):
        retirement.retire(kafka, results, pipeline, number)
        on_progress(f"{pipeline} g{number} was left by an earlier check, and is retired")
    generation = build.begin(kafka, results, Request(pipeline, "is a replay identical?", by, version=version))
    ref = GenerationRef(pipeline, generation.number)
    try:
        build.be_nice()
        for merge in (False, True):
            for piece in slice_refs(results, ref, merge=merge):
                result = run_slice(
                    kafka, results, replay, piece, lambda progress: on_progress(str(progress)), emitted
                )
                on_progress(f"{piece.name}: {result.events:,} events in {result.seconds:.1f} s")
        build.finish(results, generation)
        return caught_up(kafka, results, ref, on_progress)
    finally:
        retirement.retire(kafka, results, pipeline, ref.number)


def _created_by(results: Engine, pipeline: str, by: str) -> list[int]:
    of = tables.generations.c
    wanted = select(of.number).where(
        of.pipeline == pipeline, of.created_by == by, of.state.in_(("building", "candidate"))
    )
    with results.connect() as connection:
        return list(connection.scalars(wanted))


def replaying(results: Engine, but: str) -> list[str]:
    """Pipelines with a replay that is building or a candidate, except those requested by `but`."""
    of = tables.generations.c
    wanted = select(of.pipeline).where(of.state.in_(("building", "candidate")), of.created_by != but)
    with results.connect() as connection:
        return sorted(set(connection.scalars(wanted)))


def window_days(results: Engine, pipeline: str, now: datetime) -> list[str]:
    """The first civil day of every window from the earliest result to now, as the active generation counts them.

    None from before 2020: a single sale of 1900 would make more days than Dagster can show.
    """
    table = tables.metadata.tables[TABLES[pipeline]]
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
            select(func.min(table.c.window_start)).where(table.c.generation == active.number)
        )
    if first is None:
        return []
    of_active = active.parameters
    rules = None if active.zone_rules is None else ZoneRules.from_json(active.zone_rules)
    return Calendar(of_active["calendar"], of_active["time_zone"], rules).days(max(first, EARLIEST), now)
