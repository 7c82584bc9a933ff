"""Reads of the table of generations, and REPEATABLE READ transactions over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, select, text
from sqlalchemy.exc import OperationalError
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random

from contracts.tables import active_generations, generations
from streaming.replay.errors import Behind, Busy, RequestRefused

# PostgreSQL's "could not serialize access": a row was changed since the snapshot. The sink pauses between two applies,
# so this many in a row are of another writer.
_CONFLICT, _ATTEMPTS = "40001", 20
# A lock or a statement that took longer than the transaction allows.
_TOO_LONG = ("55P03", "57014")
# What a generation certainly reads in the seconds for which a barrier may pause live traffic.
NEAR = timedelta(seconds=10)

T = TypeVar("T")


def in_snapshot(results: Engine, pipeline: str, work: Callable[[Connection], T]) -> T:
    """The result of `work` in a REPEATABLE READ transaction, which is rolled back unless `work` commits it.

    Retried after a serialisation failure: the sink goes on with generations that no barrier holds.
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
        raise changed_concurrently(pipeline) from error
    except OperationalError as error:
        if _sqlstate(error) not in _TOO_LONG:
            raise
        raise Busy(
            f"the results database took too long over {pipeline}, and live results were not to wait"
        ) from error


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and _sqlstate(error) == _CONFLICT


def _sqlstate(error: OperationalError) -> str | None:
    return getattr(error.orig, "pgcode", None)


def pointer_of(connection: Connection, pipeline: str) -> Row[Any]:
    return connection.execute(
        select(active_generations).where(active_generations.c.pipeline == pipeline)
    ).one()


def changed_concurrently(pipeline: str) -> Busy:
    return Busy(f"the generations of {pipeline} were changed at the same moment: try again")


def known_of(results: Engine, pipeline: str) -> Sequence[Row[Any]]:
    with results.connect() as connection:
        return connection.execute(
            select(generations).where(generations.c.pipeline == pipeline).order_by(generations.c.number)
        ).all()


def find(known: Sequence[Row[Any]], pipeline: str, number: int) -> Row[Any]:
    generation = next((row for row in known if row.number == number), None)
    if generation is None:
        raise RequestRefused(f"{pipeline} has no generation {number}: {states_of(known)}")
    return generation


def active_of(known: Sequence[Row[Any]], pipeline: str) -> Row[Any]:
    active = next((row for row in known if row.state == "active"), None)
    if active is None:
        raise RequestRefused(f"{pipeline} has no active generation: {states_of(known)}")
    return active


def states_of(known: Sequence[Row[Any]]) -> str:
    return ", ".join(f"g{row.number} is {row.state}" for row in known) or "it has none at all"


def watermarks(connection: Connection, pipeline: str) -> dict[int, datetime | None]:
    """By generation: everything recorded up to it is in the rows; None until all partitions have one."""
    rows = connection.execute(
        text(
            "SELECT generation, CASE WHEN count(watermark) = count(*) THEN min(watermark) END AS watermark "
            "FROM sink_positions WHERE pipeline = :pipeline GROUP BY generation"
        ),
        {"pipeline": pipeline},
    )
    return {row.generation: row.watermark for row in rows}


def check_near(results: Engine, pipeline: str, number: int, active: int) -> None:
    """Raise Behind if the generation may not reach a barrier in time, which would pause live traffic in vain.

    Without a watermark it is behind too: slices of a replay write none, workers do.
    """
    with results.connect() as connection:
        reached = watermarks(connection, pipeline)
    shown, own = reached.get(active), reached.get(number)
    if shown is not None and (own is None or own < shown - NEAR):
        raise Behind(
            f"{pipeline} g{number} has what was recorded until {_as_text(own)}, the active g{active} until "
            f"{_as_text(shown)}: try again when it has caught up"
        )


def _as_text(moment: datetime | None) -> str:
    return "(not known yet)" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
