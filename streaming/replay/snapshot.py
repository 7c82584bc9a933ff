"""The table of generations as a request finds it, and transactions that see one state of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, select, text
from sqlalchemy.exc import OperationalError
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random

from contracts.tables import active_generations, generations
from streaming.replay.errors import Behind, Busy, RequestRefused

# PostgreSQL's "could not serialize access": a row was changed since the snapshot. The sink rests between two applies,
# so this many in a row is somebody else.
_CONFLICT, _ATTEMPTS = "40001", 20
# A lock or a statement that took longer than the transaction allows.
_TOO_LONG = ("55P03", "57014")
# What a generation reads in the seconds for which a barrier may hold up live traffic, with room to spare.
NEAR = timedelta(seconds=10)

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


def somebody_else(pipeline: str) -> Busy:
    return Busy(f"the generations of {pipeline} were changed at the same moment: look again")


def known_of(results: Engine, pipeline: str) -> Sequence[Row[Any]]:
    with results.connect() as connection:
        return connection.execute(
            select(generations).where(generations.c.pipeline == pipeline).order_by(generations.c.number)
        ).all()


def find(known: Sequence[Row[Any]], pipeline: str, number: int) -> Row[Any]:
    found = next((row for row in known if row.number == number), None)
    if found is None:
        raise RequestRefused(f"{pipeline} has no generation {number}: {states_of(known)}")
    return found


def active_of(known: Sequence[Row[Any]], pipeline: str) -> Row[Any]:
    found = next((row for row in known if row.state == "active"), None)
    if found is None:
        raise RequestRefused(f"{pipeline} has no active generation: {states_of(known)}")
    return found


def states_of(known: Sequence[Row[Any]]) -> str:
    return ", ".join(f"g{row.number} is {row.state}" for row in known) or "it has none at all"


def watermarks(connection: Connection, pipeline: str) -> dict[int, datetime | None]:
    """Up to when everything that was recorded is in a generation's rows; None before its first full set of them."""
    found = connection.execute(
        text(
            "SELECT generation, CASE WHEN count(watermark) = count(*) THEN min(watermark) END AS watermark "
            "FROM sink_positions WHERE pipeline = :pipeline GROUP BY generation"
        ),
        {"pipeline": pipeline},
    )
    return {row.generation: row.watermark for row in found}


def check_near(results: Engine, pipeline: str, number: int, active: int) -> None:
    """Raise Behind if a barrier would hold up live traffic for the generation to come to it, maybe in vain.

    One whose workers have not begun yet is behind too: slices of a replay write no watermarks.
    """
    with results.connect() as connection:
        reached = watermarks(connection, pipeline)
    shown, own = reached.get(active), reached.get(number)
    if shown is not None and (own is None or own < shown - NEAR):
        raise Behind(
            f"{pipeline} g{number} has what was recorded until {_said(own)}, the active g{active} until "
            f"{_said(shown)}: when it has caught up, ask again"
        )


def _said(moment: datetime | None) -> str:
    return "(not known yet)" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
