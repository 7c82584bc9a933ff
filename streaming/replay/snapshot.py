"""The table of generations as a request finds it, and transactions that see one state of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, select
from sqlalchemy.exc import OperationalError
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random

from contracts.tables import active_generations, generations
from streaming.replay.errors import Refused

# PostgreSQL's "could not serialize access": a row was changed since the snapshot. The sink rests between two applies,
# so this many in a row is somebody else.
_CONFLICT, _ATTEMPTS = "40001", 20

T = TypeVar("T")


def in_snapshot(results: Engine, pipeline: str, work: Callable[[Connection], T]) -> T:
    """What `work` makes of a REPEATABLE READ transaction, which is undone unless `work` commits it.

    Once more if another transaction changed what this one was about to: the sink goes on with generations that no
    barrier holds.
    """
    retrying = Retrying(
        retry=retry_if_exception(_is_conflict), stop=stop_after_attempt(_ATTEMPTS), wait=wait_random(0, 0.02)
    )

    def once() -> T:
        with results.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            return work(connection)

    try:
        return retrying(once)
    except RetryError as error:
        raise somebody_else(pipeline) from error


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and getattr(error.orig, "pgcode", None) == _CONFLICT


def pointer_of(connection: Connection, pipeline: str) -> Row[Any]:
    return connection.execute(
        select(active_generations).where(active_generations.c.pipeline == pipeline)
    ).one()


def somebody_else(pipeline: str) -> Refused:
    return Refused(f"the generations of {pipeline} were changed at the same moment: look again")


def known_of(results: Engine, pipeline: str) -> Sequence[Row[Any]]:
    with results.connect() as connection:
        return connection.execute(
            select(generations).where(generations.c.pipeline == pipeline).order_by(generations.c.number)
        ).all()


def find(known: Sequence[Row[Any]], pipeline: str, number: int) -> Row[Any]:
    found = next((row for row in known if row.number == number), None)
    if found is None:
        raise Refused(f"{pipeline} has no generation {number}: {states_of(known)}")
    return found


def active_of(known: Sequence[Row[Any]], pipeline: str) -> Row[Any]:
    found = next((row for row in known if row.state == "active"), None)
    if found is None:
        raise Refused(f"{pipeline} has no active generation: {states_of(known)}")
    return found


def states_of(known: Sequence[Row[Any]]) -> str:
    return ", ".join(f"g{row.number} is {row.state}" for row in known) or "it has none at all"
