"""The coordinator of a barrier: asks generations to rest at one position, waits until they do, lets them go.

Merge and sink are behind everything that combine wrote when they have passed the ends of their topics, asked for after
every combine was at rest. See `streaming/generations/barriers.py` for who takes part.
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

# A promotion asks under row locks that the sink waits for; clients that have asked before are answered within
# milliseconds.
LOCKED_SECONDS = 1.0
# For the last of several questions, however long the others took.
LEAST_SECONDS = 0.1

# By generation and partition; the partitions of all inputs are counted through.
Offsets = Mapping[tuple[int, int], int]


class Committed:
    """The committed offsets of generations' combines, with clients that stay open: only the first question is slow."""

    def __init__(self, kafka: KafkaSettings, generations: Sequence[Generation]) -> None:
        self._generations = generations
        self._clients: list[tuple[Generation, int, str, Consumer]] = []
        for generation in generations:
            pipeline = PIPELINES[generation.pipeline, generation.version]
            for number, found in enumerate(pipeline.inputs):
                group = generation.names.group_id(pipeline.step(found))
                client = connect.consumer(kafka, group, subscribed=False)
                first = generation.first_input(pipeline, number)
                self._clients.append((generation, first, found.source.name, client))

    def ask(self, seconds: float) -> dict[int, dict[int, int]]:
        """By generation: where they stand, at the beginning where nothing is committed. Raises KafkaException."""
        deadline = time.monotonic() + seconds
        found = {generation.number: dict(generation.start_offsets) for generation in self._generations}
        for generation, first, topic, client in self._clients:
            partitions = range(generation.topics[topic].partitions)
            left = max(LEAST_SECONDS, deadline - time.monotonic())
            for partition, offset in connect.committed_offsets(client, topic, partitions, left).items():
                found[generation.number][first + partition] = offset
        return found

    def close(self) -> None:
        for *_, client in self._clients:
            client.close()


@dataclass(frozen=True)
class ReachedBarrier:
    """A barrier that was reached: the generations rest at exactly `targets`."""

    id: int
    targets: Mapping[int, int]
    _committed: Committed

    def check(self, connection: Connection) -> None:
        """Raise Busy unless the connection's snapshot shows the generations at exactly the targets.

        The table says that nobody was let go before the snapshot. The committed offsets, asked for after it, say that
        nobody had gone on unasked: a worker that took a partition over may learn of the barrier a moment later.
        """
        state = connection.scalar(select(barriers.c.state).where(barriers.c.id == self.id))
        if state != "reached":
            raise NotInTime(f"the barrier is {state}: it took too long, try again")
        self.confirm(LOCKED_SECONDS)

    def confirm(self, seconds: float) -> None:
        """Raise Busy unless Kafka says in time that the generations are at the targets."""
        try:
            found = self._committed.ask(seconds)
        except KafkaException as error:
            raise Busy(
                f"Kafka does not say in time how far the generations are ({error.args[0].str()}), try again"
            ) from error
        for number, offsets in found.items():
            if offsets != dict(self.targets):
                raise Busy(f"g{number} moved on while its partitions changed hands, try again")


@contextmanager
def held(
    kafka: KafkaSettings, results: Engine, pipeline: str, numbers: Sequence[int], timeout: float
) -> Iterator[ReachedBarrier]:
    """Hold the generations at one position while the context lasts, at most `timeout` seconds in all.

    Raises NotInTime if they do not get there, Busy if another barrier of the pipeline stands. Whatever becomes of
    this process, live traffic goes on when the time is over.
    """
    generations = tuple(load(results, pipeline, number) for number in numbers)
    admin = connect.admin(kafka)
    # Live traffic waits neither for clients to be made nor for them to close.
    with closing(Committed(kafka, generations)) as committed:
        number = _request(results, pipeline, numbers, timeout)
        failpoint("barrier.requested")
        deadline = time.monotonic() + timeout
        coordinator = _Coordinator(results, admin, number, generations, deadline)
        try:
            barrier = ReachedBarrier(number, coordinator.gather(), committed)
            # Here already, because a client has to find its way before its first answer, and `check` may be asked by
            # somebody who holds locks.
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
            # Nobody may be there to see that the last one is overdue.
            connection.execute(
                update(barriers)
                .where(
                    barriers.c.pipeline == pipeline, barriers.c.state.in_(OPEN), barriers.c.expires_at < now
                )
                .values(state="expired")
            )
            made = connection.scalar(
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
    assert made is not None
    return int(made)


def _move(
    results: Engine,
    number: int,
    from_states: Sequence[str],
    to: str,
    targets: Mapping[int, int] | None = None,
) -> bool:
    """Compare and set; gives whether the barrier was where it had to be."""
    values: dict[str, object] = {"state": to}
    if targets is not None:
        values["targets"] = {str(partition): offset for partition, offset in targets.items()}
    with results.begin() as connection:
        moved = connection.execute(
            update(barriers).where(barriers.c.id == number, barriers.c.state.in_(from_states)).values(values)
        )
    return moved.rowcount == 1


def _have_passed(wanted: Offsets, found: Offsets) -> bool:
    return all(found.get(at, -1) >= end for at, end in wanted.items())


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
        """Bring everybody to one position; gives it. Raises NotInTime when the time is over."""
        wanted = {(g.number, p) for g in self._generations for p in g.start_offsets}
        reported = self._wait("combine", lambda found: wanted <= found.keys(), "come to rest")
        targets = {
            partition: max(reported[g.number, partition] for g in self._generations)
            for partition in self._generations[0].start_offsets
        }
        self._step(("requested",), "targeted", targets)
        at_target = {(g.number, p): offset for g in self._generations for p, offset in targets.items()}
        self._wait("combine", lambda found: at_target.items() <= found.items(), "reach the common position")
        for step, role in (("merge", "partials"), ("sink", "state")):
            self._wait(step, partial(_have_passed, self._ends(role)), "catch up")
        self._step(("targeted",), "reached")
        return targets

    def _step(self, from_states: Sequence[str], to: str, targets: Mapping[int, int] | None = None) -> None:
        if not _move(self._results, self._number, from_states, to, targets):
            raise NotInTime("the barrier expired before everybody was there, try again")
        failpoint(f"barrier.{to}")

    def _ends(self, role: str) -> Offsets:
        found: dict[tuple[int, int], int] = {}
        for generation in self._generations:
            topic = getattr(generation.names, role).name
            partitions = range(generation.topics[topic].partitions)
            found |= {
                (generation.number, partition): end
                for partition, end in ends(self._admin, topic, partitions).items()
            }
        return found

    def _wait(self, step: str, is_there: Callable[[Offsets], bool], what: str) -> Offsets:
        wanted = select(
            barrier_reports.c.generation, barrier_reports.c.partition, barrier_reports.c.offset
        ).where(barrier_reports.c.barrier == self._number, barrier_reports.c.step == step)
        with self._results.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while True:
                found = {
                    (number, partition): offset for number, partition, offset in connection.execute(wanted)
                }
                if is_there(found):
                    return found
                if time.monotonic() > self._deadline:
                    break
                time.sleep(STANDING_SECONDS)
        heard = sorted({number for number, _ in found})
        names = " and ".join(str(generation) for generation in self._generations)
        raise NotInTime(
            f"{names} did not {what} in time: {step} was heard of "
            f"{', '.join(f'g{number}' for number in heard) or 'nobody'}; are the workers and the sink running, "
            "and is a candidate far behind? `electrored status` and its lag tell"
        )
