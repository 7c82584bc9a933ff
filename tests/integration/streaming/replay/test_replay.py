"""A replay beside live traffic: built, followed, held at one position, compared, promoted."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update

from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.tables import barriers, city_totals, generations
from contracts.topics import DEAD_LETTERS, LATE_EVENTS, SOURCE_POSITIONS
from kafka_client import clients as connect
from streaming import pipelines
from streaming.generations.catalog import Generation, supervisor
from streaming.replay import barrier as coordinator
from streaming.replay import build, difference, promotion
from streaming.replay.barrier import ReachedBarrier, held
from streaming.replay.errors import RequestRefused
from streaming.replay.request import Request
from streaming.sink import postgres
from tests.integration.streaming.ground import Ground, Totals, wait_until

# For what only has to happen at some time, on a machine that may do something else for seconds.
PATIENCE_SECONDS = 60.0


@contextmanager
def patiently_held(
    kafka: KafkaSettings, results: Engine, pipeline: str, numbers: Sequence[int], timeout: float
) -> Iterator[ReachedBarrier]:
    """As `held`; 20 s are for people's live traffic, and no measure of a busy machine."""
    with held(kafka, results, pipeline, numbers, max(timeout, PATIENCE_SECONDS)) as barrier:
        yield barrier


def expire(results: Engine) -> None:
    """The time of the barrier that stands is over, now."""
    of = barriers.c
    with results.begin() as connection:
        moved = connection.execute(
            update(barriers)
            .where(of.state.in_(("requested", "targeted", "reached")))
            .values(expires_at=func.clock_timestamp())
        )
    assert moved.rowcount == 1


@dataclass
class Live:
    """Worker and sink over a generation's own log, in threads of this process."""

    ground: Ground
    results: ResultsDbSettings
    folder: Path

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        ground = self.ground
        with ThreadPoolExecutor(2) as threads:
            ended = [
                threads.submit(
                    supervisor.run, ground.kafka, self.results, ground.pipeline.name, 0, self.folder, stop
                ),
                threads.submit(postgres.run, ground.kafka, self.results, stop),
            ]
            try:
                yield
            finally:
                stop.set()
            for future in ended:
                future.result(60)

    def request(self, reason: str = "a test", **more: object) -> Request:
        return Request(self.ground.pipeline.name, reason, "test", **more)  # type: ignore[arg-type]

    def build(self, request: Request | None = None) -> Generation:
        ground = self.ground
        generation = build.begin(ground.kafka, ground.results, request or self.request())
        for pieces in build.slices(generation):
            for piece in pieces:
                self.run(generation, piece)
        return build.finish(ground.results, generation)

    def candidate(self) -> Generation:
        """One of which nothing is computed yet: all is left to the workers."""
        ground = self.ground
        return build.finish(ground.results, build.begin(ground.kafka, ground.results, self.request()))

    def run(self, generation: Generation, piece: build.Slice) -> build.Done:
        ground = self.ground
        return build.run_slice(
            ground.kafka,
            ground.results,
            generation,
            piece,
            self.folder / "slices",
            share=1.0,
            stop=threading.Event(),
        )

    def feed(self, events: Sequence[dict[str, Any]]) -> None:
        """These, and no others, in one transaction."""
        ground = self.ground
        ground.producer.begin_transaction()
        for event in events:
            ground.producer.produce(ground.source.name, ground.codec.encode(event), event["sale_id"].encode())
        ground.producer.commit_transaction(60)
        ground.events += events

    def rows(self, number: int) -> Totals:
        """What the results database says of a generation."""
        of = city_totals.c
        wanted = select(of.window_start, of.country, of.city, of.currency, of.total, of.sales_count)
        with self.ground.results.connect() as connection:
            found = connection.execute(wanted.where(of.generation == number)).all()
        return {
            (row.window_start.date().isoformat(), row.country, row.city, row.currency): (
                row.total,
                row.sales_count,
            )
            for row in found
        }

    def settled(self, number: int) -> None:
        wait_until(
            lambda: self.rows(number) == self.ground.expected(), what=f"all events in rows of g{number}"
        )

    def rests(self, number: int) -> None:
        """Nothing is added to the rows while what is fed is there many times over on a machine that is idle."""
        before, looked = self.rows(number), threading.Event()
        for _ in range(5):
            looked.wait(0.2)
            assert self.rows(number) == before

    def compare(self, number: int) -> difference.Difference:
        ground = self.ground
        return difference.take(
            ground.kafka, ground.results, ground.pipeline.name, number, hold=patiently_held
        )

    def promote(self, number: int, fingerprint: str) -> promotion.Promoted:
        ground = self.ground
        return promotion.promote(
            ground.kafka,
            ground.results,
            ground.pipeline.name,
            number,
            fingerprint=fingerprint,
            approved_by="test",
            hold=patiently_held,
        )

    def rollback(self, number: int | None = None) -> promotion.Promoted:
        ground = self.ground
        return promotion.rollback(
            ground.kafka,
            ground.results,
            ground.pipeline.name,
            number,
            reason="a test",
            approved_by="test",
            hold=patiently_held,
        )

    def until(self, condition: Callable[[], bool]) -> None:
        wait_until(condition)

    def numbers(self) -> list[int]:
        with self.ground.results.connect() as connection:
            return list(connection.scalars(select(generations.c.number).order_by(generations.c.number)))

    def state(self, number: int) -> str:
        of = generations.c
        with self.ground.results.connect() as connection:
            return str(connection.scalar(select(of.state).where(of.number == number)))


@pytest.fixture
def live(
    ground: Ground, results_db: ResultsDbSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Live]:
    """The pipeline of the ground, known under its own name."""
    connect.ensure_topics(ground.kafka, [SOURCE_POSITIONS, LATE_EVENTS, DEAD_LETTERS])
    name, version = ground.pipeline.name, ground.pipeline.version
    monkeypatch.setitem(pipelines.PIPELINES, (name, version), ground.pipeline)
    monkeypatch.setitem(pipelines.CURRENT, name, version)
    # Below the 5 s for which a promotion may be idle under its locks.
    monkeypatch.setattr(coordinator, "LOCKED_SECONDS", 4.0)
    yield Live(ground, results_db, tmp_path / "live")
    # A worker has its process to itself, and turns the collector off.
    gc.unfreeze()
    gc.enable()


def test_a_replay_ends_as_a_candidate_that_differs_in_nothing_and_is_kept_up_to_date(live: Live) -> None:
    live.ground.feed(3000)
    with live.running():
        live.settled(1)
        candidate = live.build()
        assert (candidate.number, candidate.state) == (2, "candidate")
        live.settled(2)
        live.ground.feed(500)
        live.settled(2)
        found = live.compare(2)
        assert (found.count, found.outside) == (0, 0)
        assert found.compared == len([1 for _, count in live.ground.expected().values() if count])


def test_what_is_compared_is_exact_while_events_pour_in(live: Live) -> None:
    live.ground.feed(2000)
    pouring = threading.Event()

    def pour() -> None:
        # With a pause: worker, sink and coordinator are threads of this process.
        while not pouring.wait(0.02):
            live.ground.feed(40)

    with live.running(), ThreadPoolExecutor(1) as threads:
        live.build()
        live.settled(2)
        poured = threads.submit(pour)
        try:
            targets = []
            for _ in range(5):
                found = live.compare(2)
                assert found.count == 0
                targets.append(sum(found.targets.values()))
        finally:
            pouring.set()
        poured.result(60)
        assert targets == sorted(set(targets))
        live.settled(1)
        live.settled(2)


def test_a_promoted_generation_answers_and_the_former_is_kept_up_to_date(live: Live) -> None:
    live.ground.feed(1000)
    with live.running():
        live.build()
        live.settled(2)
        promoted = live.promote(2, live.compare(2).fingerprint)
        assert (promoted.generation, promoted.former, promoted.promotion_number) == (2, 1, 2)
        assert (live.state(1), live.state(2)) == ("standby", "active")
        live.ground.feed(300)
        live.settled(2)
        live.settled(1)
        back = live.rollback()
        assert (back.generation, live.state(1), live.state(2)) == (1, "active", "standby")


def test_a_slice_that_was_ended_goes_on_where_it_was(live: Live) -> None:
    live.ground.feed(4000)
    generation = build.begin(live.ground.kafka, live.ground.results, live.request())
    combines, merges = build.slices(generation)
    first = live.run(generation, combines[0])
    # Again from the beginning, as a job that was killed is run again.
    assert build.begin(live.ground.kafka, live.ground.results, live.request()).number == 2
    assert live.run(generation, combines[0]) == first
    for piece in [*combines[1:], *merges, *merges]:
        live.run(generation, piece)
    build.finish(live.ground.results, generation)
    with live.running():
        live.settled(1)
        live.settled(2)
        assert live.compare(2).is_empty


def test_a_second_replay_is_refused_while_one_waits(live: Live) -> None:
    live.ground.feed(100)
    live.candidate()
    with pytest.raises(RequestRefused, match="waits: promote or retire it first"):
        build.begin(live.ground.kafka, live.ground.results, live.request("another"))
    same = build.begin(live.ground.kafka, live.ground.results, live.request())
    assert (same.number, same.state) == (2, "candidate"), "to be compared once more"


def test_what_somebody_else_left_is_not_gone_on_with(live: Live) -> None:
    """The nightly check takes away what it made, and whatever it took over would go as well."""
    ground = live.ground
    ground.feed(100)
    build.begin(ground.kafka, ground.results, live.request())
    asked = Request(ground.pipeline.name, "a test", "somebody else")
    with pytest.raises(
        RequestRefused, match="'a test' by test, is being built: the same request again goes on"
    ):
        build.begin(ground.kafka, ground.results, asked)


def test_without_workers_a_barrier_is_refused_in_time_and_leaves_nothing_held(live: Live) -> None:
    live.ground.feed(100)
    live.candidate()
    name = live.ground.pipeline.name
    with (
        pytest.raises(RequestRefused, match="combine was heard of nobody"),
        held(live.ground.kafka, live.ground.results, name, (1, 2), 1.0),
    ):
        pass
    with live.running():
        live.settled(1)
        live.settled(2)


def test_a_barrier_whose_coordinator_died_expires_and_live_traffic_goes_on(live: Live) -> None:
    ground = live.ground
    ground.feed(100)
    with live.running():
        live.settled(1)
        holding = held(ground.kafka, ground.results, ground.pipeline.name, (1,), 600.0)
        barrier = holding.__enter__()
        ground.feed(50)
        with ground.results.connect() as connection:
            barrier.check(connection)
        again = held(ground.kafka, ground.results, ground.pipeline.name, (1,), 4.0)
        with pytest.raises(RequestRefused, match="being compared or promoted already"):
            again.__enter__()
        live.rests(1)
        expire(ground.results)
        live.settled(1)
        with (
            ground.results.connect() as connection,
            pytest.raises(RequestRefused, match="the barrier is expired"),
        ):
            barrier.check(connection)
        holding.__exit__(None, None, None)
        with ground.results.begin() as connection:
            assert connection.scalars(select(barriers.c.state)).all() == ["expired"]


def test_a_version_that_this_code_lacks_is_left_to_others(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a new release is rolled out, workers of the old one give up nothing that others run well."""
    monkeypatch.setattr(supervisor, "AGAIN_SECONDS", ())
    ground = live.ground
    ground.feed(100)
    live.candidate()
    with ground.results.begin() as connection:
        connection.execute(update(generations).where(generations.c.number == 2).values(version=9))
    with live.running():
        live.settled(1)
        ground.feed(100)
        live.settled(1)
    assert live.state(2) == "candidate"
