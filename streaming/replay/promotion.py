"""Promotion: which generation is active changes in one transaction, at one input position of the old and the new one.

The transaction begins by locking the rows of both generations. The sink applies nothing under these locks, so what is
compared and what is committed is one state, and concurrent promotions are serialised. A rollback is the promotion of
the standby.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text, update

from contracts.settings import KafkaSettings
from contracts.tables import active_generations, generations
from observability import logs
from streaming.replay import difference
from streaming.replay.difference import BARRIER_SECONDS, Difference, Hold
from streaming.replay.errors import NotInTime, RequestRefused
from streaming.replay.failpoints import failpoint
from streaming.replay.snapshot import (
    active_of,
    changed_concurrently,
    check_near,
    find,
    in_snapshot,
    known_of,
    pointer_of,
    states_of,
    watermarks,
)

_log = logs.get(__name__)

# An approval expires: both generations go on, and may come to differ in more.
SEEN_WITHIN = timedelta(days=1)
# Under the locks there is one request to Kafka, of a second at most, and one statement over both generations.
LOCKED_MILLISECONDS = {
    "idle_in_transaction_session_timeout": 5_000,
    "lock_timeout": 5_000,
    "statement_timeout": 10_000,
}


@dataclass(frozen=True)
class Promoted:
    """The active generation, the former one, and former standbys that have to be retired since there is only one."""

    pipeline: str
    generation: int
    former: int
    promotion_number: int
    replaced: tuple[int, ...]


def promote(
    kafka: KafkaSettings,
    results: Engine,
    pipeline: str,
    number: int,
    *,
    fingerprint: str,
    approved_by: str,
    hold: Hold,
) -> Promoted:
    """Make the generation active. Raises RequestRefused, and nothing was changed, unless

    1. it is a candidate or the standby, 2. the fingerprint is that of its newest difference, 3. that was taken within a
    day, from the generation that is active now, since the last promotion, 4. it reaches the active one's position in
    seconds, 5. there, nothing differs outside of its range. If something does, that difference is stored.

    Idempotent: after a crash the same call returns the result if it is done.
    """
    known = known_of(results, pipeline)
    generation, active = find(known, pipeline, number), active_of(known, pipeline)
    seen = difference.newest(results, pipeline, number)
    if generation.number == active.number:
        return _done_already(results, pipeline, number, seen, fingerprint)
    if generation.state not in ("candidate", "standby"):
        raise RequestRefused(
            f"{pipeline} g{number} is {generation.state}: only a candidate or a standby is promoted"
        )
    if seen is None:
        raise RequestRefused(f"the difference of {pipeline} g{number} was not computed yet: `diff` shows it")
    if seen.fingerprint != fingerprint:
        raise RequestRefused(
            f"the fingerprint is not that of the newest difference of {pipeline} g{number}: review it again"
        )

    def current(connection: Connection, pointer: Row[Any]) -> None:
        newest = difference.newest_in(connection, pipeline, number)
        assert newest is not None
        if newest.fingerprint != fingerprint:
            raise RequestRefused(f"{pipeline} g{number} was compared again meanwhile: review it again")
        if (newest.base, newest.promotion_number) != (pointer.generation, pointer.promotion_number):
            raise RequestRefused(
                f"the difference of {pipeline} g{number} is from g{newest.base}, before another promotion: "
                "review it again"
            )
        if newest.computed_at < datetime.now(UTC) - SEEN_WITHIN:
            raise RequestRefused(
                f"the difference of {pipeline} g{number} was seen on {newest.computed_at:%Y-%m-%d at %H:%M}, and much "
                "may have come since: review it again"
            )

    def switch(connection: Connection) -> Promoted | None:
        _lock(connection, pipeline)
        barrier.check(connection)
        pointer = _pointer(connection, pipeline, active)
        current(connection, pointer)
        if difference.is_any_outside(connection, pipeline, number):
            return None
        return _move(connection, pipeline, number, pointer, approved_by, None)

    def look(connection: Connection) -> Difference:
        barrier.check(connection)
        result = difference.compute(connection, barrier, pipeline, number)
        connection.commit()
        return result

    # First without a barrier: live traffic is not paused for a request that is refused anyway.
    in_snapshot(results, pipeline, lambda connection: current(connection, pointer_of(connection, pipeline)))
    check_near(results, pipeline, number, active.number)
    with hold(kafka, results, pipeline, (active.number, number), BARRIER_SECONDS) as barrier:
        done = in_snapshot(results, pipeline, switch)
        if done is not None:
            return done
        outside = in_snapshot(results, pipeline, look).outside
    raise RequestRefused(
        f"{pipeline} g{number} differs in {outside} groups outside of its range "
        f"{generation.range_start.isoformat()} to {generation.range_end.isoformat()}: `diff` shows them"
    )


def rollback(
    kafka: KafkaSettings,
    results: Engine,
    pipeline: str,
    number: int | None = None,
    *,
    reason: str,
    approved_by: str,
    hold: Hold,
) -> Promoted:
    """Make the standby active again. The reason is stored with the generation that is left.

    If the active generation cannot be paused, which may be why it is left, only the standby is paused, and becomes
    active unless it is further behind. With a `number` it is idempotent. Raises RequestRefused.
    """
    if not reason.strip():
        raise RequestRefused("a rollback needs a reason")
    known = known_of(results, pipeline)
    active = active_of(known, pipeline)
    standby = next((row for row in known if row.state == "standby"), None)
    if number is not None and number == active.number:
        return _now(results, pipeline, active.number)
    if standby is None or number not in (None, standby.number):
        wanted = "no standby" if number is None else f"no standby g{number}"
        raise RequestRefused(f"{pipeline} has {wanted} to go back to: {states_of(known)}")

    def switch(connection: Connection) -> Promoted:
        _lock(connection, pipeline)
        barrier.check(connection)
        pointer = _pointer(connection, pipeline, active)
        if alone and _is_behind(connection, pipeline, standby.number, pointer.generation):
            raise RequestRefused(
                f"{alone}; and the standby g{standby.number} is behind the active generation"
            )
        return _move(connection, pipeline, standby.number, pointer, approved_by, reason.strip())

    alone = None
    with ExitStack() as holding:
        try:
            both = hold(kafka, results, pipeline, (active.number, standby.number), BARRIER_SECONDS)
            barrier = holding.enter_context(both)
        except NotInTime as error:
            alone = str(error)
            _log.warning("only the standby is paused", pipeline=pipeline, reason=alone)
            barrier = holding.enter_context(
                hold(kafka, results, pipeline, (standby.number,), BARRIER_SECONDS)
            )
        return in_snapshot(results, pipeline, switch)


def _is_behind(connection: Connection, pipeline: str, number: int, other: int) -> bool:
    """Whether the rows of the one have a lower watermark than those of the other."""
    reached = watermarks(connection, pipeline)
    own, shown = reached.get(number), reached.get(other)
    return shown is not None and (own is None or own < shown)


def _move(
    connection: Connection,
    pipeline: str,
    number: int,
    pointer: Row[Any],
    approved_by: str,
    reason: str | None,
) -> Promoted:
    """Change pointer and states in the open transaction, and commit it.

    Every statement has its expected state as a condition: if it matches no row, another transaction was first.
    """
    now = datetime.now(UTC)
    of = generations.c
    leaves = {"state": "standby", "standby_at": now}
    if reason is not None:
        leaves["error"] = f"rolled back by {approved_by}: {reason}"
    replaced = connection.scalars(
        update(generations)
        .where(of.pipeline == pipeline, of.state == "standby", of.number != number)
        .values(state="retired")
        .returning(of.number)
    ).all()
    moved = [
        connection.execute(
            update(generations)
            .where(of.pipeline == pipeline, of.number == pointer.generation, of.state == "active")
            .values(leaves)
        ),
        connection.execute(
            update(generations)
            .where(of.pipeline == pipeline, of.number == number, of.state.in_(("candidate", "standby")))
            .values(state="active", promoted_at=now, approved_by=approved_by, standby_at=None, error=None)
        ),
        connection.execute(
            update(active_generations)
            .where(
                active_generations.c.pipeline == pipeline,
                active_generations.c.generation == pointer.generation,
                active_generations.c.promotion_number == pointer.promotion_number,
            )
            .values(generation=number, promotion_number=pointer.promotion_number + 1)
        ),
    ]
    if any(result.rowcount != 1 for result in moved):
        raise changed_concurrently(pipeline)
    failpoint("promote.before_commit")
    connection.commit()
    failpoint("promote.committed")
    done = Promoted(pipeline, number, pointer.generation, pointer.promotion_number + 1, tuple(replaced))
    _log.info("promoted", **done.__dict__, approved_by=approved_by, reason=reason)
    return done


def _done_already(
    results: Engine, pipeline: str, number: int, seen: Difference | None, fingerprint: str
) -> Promoted:
    now = _now(results, pipeline, number)
    if seen is None or (seen.fingerprint, seen.promotion_number + 1) != (fingerprint, now.promotion_number):
        raise RequestRefused(f"{pipeline} g{number} is active already")
    return now


def _now(results: Engine, pipeline: str, number: int) -> Promoted:
    """The result of a promotion that is done, from the tables."""
    known = known_of(results, pipeline)
    former = next((row.number for row in known if row.state == "standby"), number)
    replaced = tuple(row.number for row in known if row.state == "retired" and row.retired_at is None)
    with results.connect() as connection:
        pointer = pointer_of(connection, pipeline)
    return Promoted(pipeline, number, former, pointer.promotion_number, replaced)


def _pointer(connection: Connection, pipeline: str, active: Row[Any]) -> Row[Any]:
    """The pointer, under the locks. Raises Busy if it changed since the request was checked."""
    pointer = pointer_of(connection, pipeline)
    if pointer.generation != active.number:
        raise changed_concurrently(pipeline)
    return pointer


def _lock(connection: Connection, pipeline: str) -> None:
    """First in its transaction, so that the snapshot is no older than the locks.

    Not the rows of retired ones, which a retirement may lock. The sink waits for these locks, so the server ends an
    idle session: one whose machine is gone would hold them until the TCP timeout.
    """
    for setting, milliseconds in LOCKED_MILLISECONDS.items():
        connection.execute(text(f"SET LOCAL {setting} = {milliseconds}"))
    connection.execute(
        text(
            "SELECT number FROM generations WHERE pipeline = :pipeline AND state IN ('candidate', 'active', 'standby') "
            "ORDER BY number FOR UPDATE"
        ),
        {"pipeline": pipeline},
    )
