"""Which generation is shown: moved in one transaction, at one input position of the old and the new one.

The transaction begins by locking the rows of both generations. Under them nothing is applied any more, so what it
compares and what it commits is one state, and two promotions at once cannot both see themselves first. A rollback is
the promotion of the standby.
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
    check_near,
    find,
    in_snapshot,
    known_of,
    pointer_of,
    somebody_else,
    states_of,
    watermarks,
)

_log = logs.get(__name__)

# What was approved is what was seen; both generations go on meanwhile, and come to differ in more.
SEEN_WITHIN = timedelta(days=1)
# Under the locks Kafka is asked once, within a second, and one statement reads both generations.
LOCKED_MILLISECONDS = {
    "idle_in_transaction_session_timeout": 5_000,
    "lock_timeout": 5_000,
    "statement_timeout": 10_000,
}


@dataclass(frozen=True)
class Promoted:
    """What is shown now, what was shown before, and what has to be cleared away since there is one standby only."""

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
    """Show the generation to everybody. Raises RequestRefused, and nothing was changed, unless

    1. it is a candidate or the standby, 2. the fingerprint is that of its newest difference, 3. that was taken within a
    day, from the generation that is active now, since the last promotion, 4. it reaches the active one's position in
    seconds, 5. there, nothing differs outside of the range that was asked for. If something does, that is stored.

    Asked again after a crash: if it is done, that is the answer.
    """
    known = known_of(results, pipeline)
    made, active = find(known, pipeline, number), active_of(known, pipeline)
    seen = difference.newest(results, pipeline, number)
    if made.number == active.number:
        return _done_already(results, pipeline, number, seen, fingerprint)
    if made.state not in ("candidate", "standby"):
        raise RequestRefused(
            f"{pipeline} g{number} is {made.state}: only a candidate or a standby is promoted"
        )
    if seen is None:
        raise RequestRefused(
            f"nobody has looked at the difference of {pipeline} g{number} yet: `diff` shows it"
        )
    if seen.fingerprint != fingerprint:
        raise RequestRefused(
            f"the fingerprint is not that of the newest difference of {pipeline} g{number}: look at it again"
        )

    def current(connection: Connection, pointer: Row[Any]) -> None:
        newest = difference.newest_in(connection, pipeline, number)
        assert newest is not None
        if newest.fingerprint != fingerprint:
            raise RequestRefused(f"{pipeline} g{number} was compared again meanwhile: look at it again")
        if (newest.base, newest.promotion_number) != (pointer.generation, pointer.promotion_number):
            raise RequestRefused(
                f"the difference of {pipeline} g{number} is from g{newest.base}, before another promotion: "
                "look at it again"
            )
        if newest.computed_at < datetime.now(UTC) - SEEN_WITHIN:
            raise RequestRefused(
                f"the difference of {pipeline} g{number} was seen on {newest.computed_at:%Y-%m-%d at %H:%M}, and much "
                "may have come since: look at it again"
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
        found = difference.compute(connection, barrier, pipeline, number)
        connection.commit()
        return found

    # First without a barrier: live traffic is not held up for what is refused anyway.
    in_snapshot(results, pipeline, lambda connection: current(connection, pointer_of(connection, pipeline)))
    check_near(results, pipeline, number, active.number)
    with hold(kafka, results, pipeline, (active.number, number), BARRIER_SECONDS) as barrier:
        done = in_snapshot(results, pipeline, switch)
        if done is not None:
            return done
        outside = in_snapshot(results, pipeline, look).outside
    raise RequestRefused(
        f"{pipeline} g{number} differs in {outside} groups outside of its range "
        f"{made.range_start.isoformat()} to {made.range_end.isoformat()}: `diff` shows them"
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
    """Show the standby again. The reason is noted with the generation that is left.

    If the active generation does not come to rest, that may well be the reason: then the standby is held alone, and is
    shown if it is no further behind than what is shown now. With a `number` it may be asked again after a crash: what
    is active already stays. Raises RequestRefused.
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
            raise RequestRefused(f"{alone}; and the standby g{standby.number} is behind what is shown now")
        return _move(connection, pipeline, standby.number, pointer, approved_by, reason.strip())

    alone = None
    with ExitStack() as holding:
        try:
            both = hold(kafka, results, pipeline, (active.number, standby.number), BARRIER_SECONDS)
            barrier = holding.enter_context(both)
        except NotInTime as error:
            alone = str(error)
            _log.warning("the standby is held alone", pipeline=pipeline, reason=alone)
            barrier = holding.enter_context(
                hold(kafka, results, pipeline, (standby.number,), BARRIER_SECONDS)
            )
        return in_snapshot(results, pipeline, switch)


def _is_behind(connection: Connection, pipeline: str, number: int, other: int) -> bool:
    """Whether less of the sources is certainly in the rows of the one than in those of the other."""
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
    """Pointer and states in the transaction that is open, which is then committed.

    Every statement says what it expects to find: if it does not, somebody else was first.
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
        raise somebody_else(pipeline)
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
    """What a promotion has left, for who asks again."""
    known = known_of(results, pipeline)
    former = next((row.number for row in known if row.state == "standby"), number)
    replaced = tuple(row.number for row in known if row.state == "retired" and row.retired_at is None)
    with results.connect() as connection:
        pointer = pointer_of(connection, pipeline)
    return Promoted(pipeline, number, former, pointer.promotion_number, replaced)


def _pointer(connection: Connection, pipeline: str, active: Row[Any]) -> Row[Any]:
    """What is shown, under the locks. Raises Busy if it is not what the request was judged by."""
    found = pointer_of(connection, pipeline)
    if found.generation != active.number:
        raise somebody_else(pipeline)
    return found


def _lock(connection: Connection, pipeline: str) -> None:
    """First in its transaction, so that the snapshot is no older than the locks.

    Not the rows of retired ones: whoever clears them away is not waited for. The sink waits for these rows, so the
    server ends who keeps it waiting: a process whose machine is gone would hold them until TCP gives up.
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
