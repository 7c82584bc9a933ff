"""Worker and sink in threads, and replays beside them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select, update

from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.tables import barriers, city_totals, generations
from streaming.engine.loop import Loop
from streaming.generations import supervisor
from streaming.generations.catalog import Generation
from streaming.replay import build, difference, promotion
from streaming.replay.barrier import ReachedBarrier, hold_at_barrier
from streaming.replay.build import Done, Slice
from streaming.replay.request import Request
from streaming.sink import postgres
from tests.support import threads
from tests.support.pipeline_harness import PipelineHarness, Totals
from tests.support.waiting import wait_until

# For what only has to happen at some time, on a machine that may do something else for seconds.
PATIENCE_SECONDS = 60.0


@contextmanager
def patiently_held(
    kafka: KafkaSettings, results: Engine, pipeline: str, numbers: Sequence[int], timeout: float
) -> Iterator[ReachedBarrier]:
    """As `hold_at_barrier`; 20 s are for people's live traffic, and no measure of a busy machine."""
    with hold_at_barrier(kafka, results, pipeline, numbers, max(timeout, PATIENCE_SECONDS)) as barrier:
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
class LiveHarness:
    """Worker and sink over a generation's own log, in threads of this process."""

    harness: PipelineHarness
    results: ResultsDbSettings
    folder: Path
    # Polls of each loop so far, by flow.
    polls: Counter[str] = field(default_factory=Counter)

    def counted(self, run_once: Callable[[Loop], None]) -> Callable[[Loop], None]:
        def counting(loop: Loop) -> None:
            run_once(loop)
            self.polls[loop.flow] += 1

        return counting

    @contextmanager
    def running(self) -> Iterator[None]:
        kafka, pipeline = self.harness.kafka, self.harness.pipeline.name
        with threads.running(
            lambda stop: supervisor.run(kafka, self.results, pipeline, 0, self.folder, stop),
            lambda stop: postgres.run(kafka, self.results, stop),
        ):
            yield

    def request(self, reason: str = "a test", **more: object) -> Request:
        return Request(self.harness.pipeline.name, reason, "test", **more)  # type: ignore[arg-type]

    def build(self, request: Request | None = None) -> Generation:
        harness = self.harness
        generation = build.begin(harness.kafka, harness.results, request or self.request())
        for pieces in build.slices(generation):
            for piece in pieces:
                self.run(generation, piece)
        return build.finish(harness.results, generation)

    def candidate(self) -> Generation:
        """One of which nothing is computed yet: all is left to the workers."""
        harness = self.harness
        return build.finish(harness.results, build.begin(harness.kafka, harness.results, self.request()))

    def run(self, generation: Generation, piece: Slice) -> Done:
        harness = self.harness
        return build.run_slice(
            harness.kafka,
            harness.results,
            generation,
            piece,
            self.folder / "slices",
            share=1.0,
            stop=threading.Event(),
        )

    def feed(self, events: Sequence[dict[str, Any]]) -> None:
        """These, and no others, in one transaction."""
        harness = self.harness
        harness.producer.begin_transaction()
        for event in events:
            harness.producer.produce(
                harness.source.name, harness.codec.encode(event), event["sale_id"].encode()
            )
        harness.producer.commit_transaction(60)
        harness.events += events

    def rows(self, number: int) -> Totals:
        """A generation's rows in the results database."""
        of = city_totals.c
        wanted = select(of.window_start, of.country, of.city, of.currency, of.total, of.sales_count)
        with self.harness.results.connect() as connection:
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
            lambda: self.rows(number) == self.harness.expected(), what=f"all events in rows of g{number}"
        )

    def rests(self, number: int) -> None:
        """Nothing is added to the rows within a second and ten polls of each loop of the generation."""
        before, looked = self.rows(number), threading.Event()
        polled = {flow: count for flow, count in self.polls.items() if f".g{number}." in flow}
        assert polled
        for _ in range(5):
            looked.wait(0.2)
            assert self.rows(number) == before
        wait_until(
            lambda: all(self.polls[flow] >= count + 10 for flow, count in polled.items()), what="polls"
        )
        assert self.rows(number) == before

    def compare(self, number: int) -> difference.Difference:
        harness = self.harness
        return difference.take(
            harness.kafka, harness.results, harness.pipeline.name, number, hold=patiently_held
        )

    def promote(self, number: int, fingerprint: str) -> promotion.Promoted:
        harness = self.harness
        return promotion.promote(
            harness.kafka,
            harness.results,
            harness.pipeline.name,
            number,
            fingerprint=fingerprint,
            approved_by="test",
            hold=patiently_held,
        )

    def rollback(self, number: int | None = None) -> promotion.Promoted:
        harness = self.harness
        return promotion.rollback(
            harness.kafka,
            harness.results,
            harness.pipeline.name,
            number,
            reason="a test",
            approved_by="test",
            hold=patiently_held,
        )

    def numbers(self) -> list[int]:
        with self.harness.results.connect() as connection:
            return list(connection.scalars(select(generations.c.number).order_by(generations.c.number)))

    def state(self, number: int) -> str:
        of = generations.c
        with self.harness.results.connect() as connection:
            return str(connection.scalar(select(of.state).where(of.number == number)))
