"""The coordinator of a barrier: pauses generations at one position, and releases them.

Merge and sink have processed all that combine wrote when they have passed the ends of their topics, read after every
combine was paused. See `streaming/generations/barriers.py` for the participants.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient
from sqlalchemy import Connection, Engine, Interval, cast, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.settings import KafkaSettings
from contracts.tables import barrier_reports, barriers
from kafka_client import clients as connect
from kafka_client.offsets import ends
from observability import logs
from streaming.generations.barriers import OPEN, STANDING_SECONDS
from streaming.generations.catalog import Generation, load
from streaming.pipelines import PIPELINES
from streaming.replay.errors import Busy, NotInTime
from streaming.replay.failpoints import failpoint

_log = logs.get(__name__)

# A promotion reads them under row locks that the sink waits for; a connected client has its response in milliseconds.
LOCKED_SECONDS = 1.0
# For the last of several requests, however long the others took.
LEAST_SECONDS = 0.1

# By generation and partition; the partitions of all inputs are numbered through.
Offsets = Mapping[tuple[int, int], int]


class Committed:
    """The committed offsets of generations' combines, by clients that stay open: only the first request is slow."""

    def __init__(self, kafka: KafkaSettings, generations: Sequence[Generation]) -> None:
        self._generations = generations
        self._clients: list[tuple[Generation, int, str, Consumer]] = []
        for generation in generations:
            pipeline = PIPELINES[generation.pipeline, generation.version]
            for number, each in enumerate(pipeline.inputs):
                group = generation.names.group_id(pipeline.step(each))
                client = connect.consumer(kafka, group, subscribed=False)
                first = generation.first_input(pipeline, number)
                self._clients.append((generation, first, each.source.name, client))

    def read(self, seconds: float) -> dict[int, dict[int, int]]:
        """By generation: the offsets, the start offset where none is committed. Raises KafkaException."""
        deadline = time.monotonic() + seconds
        by_generation = {
            generation.number: dict(generation.start_offsets) for generation in self._generations
        }
        for generation, first, topic, client in self._clients:
            partitions = range(generation.topics[topic].partitions)
            left = max(LEAST_SECONDS, deadline - time.monotonic())
            for partition, offset in connect.committed_offsets(client, topic, partitions, left).items():
                by_generation[generation.number][first + partition] = offset
        return by_generation

    def close(self) -> None:
        for *_, client in self._clients:
            client.close()


@dataclass(frozen=True)
class ReachedBarrier:
    """A barrier that was reached: the generations are paused at exactly `targets`."""

    id: int
    targets: Mapping[int, int]
    _committed: Committed

    def check(self, connection: Connection) -> None:
        """Raise Busy unless the connection's snapshot shows the generations at exactly the targets.

        By the table no combine was released before the snapshot. By the committed offsets, read after it, none had gone
        on by itself: a worker that took a partition over may see the barrier a moment later.
        """
        state = connection.scalar(select(barriers.c.state).where(barriers.c.id == self.id))
        if state != "reached":
            raise NotInTime(f"the barrier is {state}: it took too long, try again")
        self.confirm(LOCKED_SECONDS)

    def confirm(self, seconds: float) -> None:
        """Raise Busy unless the committed offsets are read in time and are the targets."""
        try:
            by_generation = self._committed.read(seconds)
        except KafkaException as error:
            raise Busy(
                f"Kafka did not return the generations' offsets in time ({error.args[0].str()}), try again"
            ) from error
        for number, offsets in by_generation.items():
            if offsets != dict(self.targets):
                raise Busy(f"g{number} moved on while its partitions changed hands, try again")


@contextmanager
def hold_at_barrier(
    kafka: KafkaSettings, results: Engine, pipeline: str, numbers: Sequence[int], timeout: float
) -> Iterator[ReachedBarrier]:
    """Pause the generations at one position while the context lasts, at most `timeout` seconds in all.

    Raises NotInTime if they do not get there, Busy if another barrier of the pipeline is open. Even if this process
    dies, live traffic resumes after the timeout.
    """
    generations = tuple(load(results, pipeline, number) for number in numbers)
    admin = connect.admin(kafka)
    # Clients are created before and closed after live traffic is paused.
    with closing(Committed(kafka, generations)) as committed:
        number = _request(results, pipeline, numbers, timeout)
        failpoint("barrier.requested")
        deadline = time.monotonic() + timeout
        coordinator = _Coordinator(results, admin, number, generations, deadline)
        try:
            barrier = ReachedBarrier(number, coordinator.gather(), committed)
            # Here already, because a client connects at its first request, and `check` may be called under row locks.
            barrier.confirm(deadline - time.monotonic())
            _log.info("generations are held", pipeline=pipeline, generations=list(numbers), barrier=number)
            yield barrier
        finally:
            _move(results, number, OPEN, "released")


def _request(results: Engine, pipeline: str, numbers: Sequence[int], timeout: float) -> int:
    now = func.clock_timestamp()
    lasting = cast(f"{timeout} seconds", Interval)
    try:
        with results.begin() as connection:
            # Without running workers an overdue barrier is still open.
            connection.execute(
                update(barriers)
                .where(
                    barriers.c.pipeline == pipeline, barriers.c.state.in_(OPEN), barriers.c.expires_at < now
                )
                .values(state="expired")
            )
            number = connection.scalar(
                insert(barriers)
                .values(
                    pipeline=pipeline,
                    generations=list(numbers),
                    state="requested",
                    created_at=now,
                    expires_at=now + lasting,
                )
                .returning(barriers.c.id)
            )
    except IntegrityError as error:
        raise Busy(f"{pipeline} is being compared or promoted already, try again in a moment") from error
    assert number is not None
    return int(number)


def _move(
    results: Engine,
    number: int,
    from_states: Sequence[str],
    to: str,
    targets: Mapping[int, int] | None = None,
) -> bool:
    """Compare and set; returns whether the barrier was in one of `from_states`."""
    values: dict[str, object] = {"state": to}
    if targets is not None:
        values["targets"] = {str(partition): offset for partition, offset in targets.items()}
    with results.begin() as connection:
        moved = connection.execute(
            update(barriers).where(barriers.c.id == number, barriers.c.state.in_(from_states)).values(values)
        )
    return moved.rowcount == 1


def _have_passed(wanted: Offsets, reported: Offsets) -> bool:
    return all(reported.get(at, -1) >= end for at, end in wanted.items())


class _Coordinator:
    def __init__(
        self,
        results: Engine,
        admin: AdminClient,
        number: int,
        generations: tuple[Generation, ...],
        deadline: float,
    ) -> None:
        self._results = results
        self._admin = admin
        self._number = number
        self._generations = generations
        self._deadline = deadline

    def gather(self) -> dict[int, int]:
        """Pause all generations at one position; returns it. Raises NotInTime at the deadline."""
        wanted = {(g.number, p) for g in self._generations for p in g.start_offsets}
        reported = self._wait("combine", lambda offsets: wanted <= offsets.keys(), "pause")
        targets = {
            partition: max(reported[g.number, partition] for g in self._generations)
            for partition in self._generations[0].start_offsets
        }
        self._step(("requested",), "targeted", targets)
        at_target = {(g.number, p): offset for g in self._generations for p, offset in targets.items()}
        self._wait(
            "combine", lambda offsets: at_target.items() <= offsets.items(), "reach the common position"
        )
        for step, role in (("merge", "partials"), ("sink", "state")):
            self._wait(step, partial(_have_passed, self._ends(role)), "catch up")
        self._step(("targeted",), "reached")
        return targets

    def _step(self, from_states: Sequence[str], to: str, targets: Mapping[int, int] | None = None) -> None:
        if not _move(self._results, self._number, from_states, to, targets):
            raise NotInTime("the barrier expired before all generations reached it, try again")
        failpoint(f"barrier.{to}")

    def _ends(self, role: str) -> Offsets:
        by_partition: dict[tuple[int, int], int] = {}
        for generation in self._generations:
            topic = getattr(generation.names, role).name
            partitions = range(generation.topics[topic].partitions)
            by_partition |= {
                (generation.number, partition): end
                for partition, end in ends(self._admin, topic, partitions).items()
            }
        return by_partition

    def _wait(self, step: str, is_there: Callable[[Offsets], bool], what: str) -> Offsets:
        wanted = select(
            barrier_reports.c.generation, barrier_reports.c.partition, barrier_reports.c.offset
        ).where(barrier_reports.c.barrier == self._number, barrier_reports.c.step == step)
        with self._results.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while True:
                offsets = {
                    (number, partition): offset for number, partition, offset in connection.execute(wanted)
                }
                if is_there(offsets):
                    return offsets
                if time.monotonic() > self._deadline:
                    break
                time.sleep(STANDING_SECONDS)
        reporting = sorted({number for number, _ in offsets})
        names = " and ".join(str(generation) for generation in self._generations)
        raise NotInTime(
            f"timed out waiting for {names} to {what}: {step} reported by "
            f"{', '.join(f'g{number}' for number in reporting) or 'no generation'}; are the workers and the sink "
            "running, and is a candidate far behind? `electrored status` shows it"
        )
