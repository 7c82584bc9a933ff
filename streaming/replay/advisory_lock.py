"""Who is at work on a generation, as PostgreSQL knows it: a lock that ends with the process that took it.

Each slice of a replay holds it, shared, on whatever machine it runs; so a killed job is known to be gone at once,
and no clock decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from streaming.replay.errors import RequestRefused

_SHARED = text("SELECT pg_try_advisory_lock_shared(hashtext(:pipeline), :number)")
_UNLOCK = text("SELECT pg_advisory_unlock_shared(hashtext(:pipeline), :number)")
_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtext(:pipeline), :number)")


@contextmanager
def working_on(results: Engine, pipeline: str, number: int) -> Iterator[None]:
    """Be known to work on the generation. Raises RequestRefused while somebody takes it away."""
    # Outside of a transaction, which would hold back the database's vacuum for as long as the slice takes.
    with results.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        asked = {"pipeline": pipeline, "number": number}
        if not connection.scalar(_SHARED, asked):
            raise RequestRefused(f"{pipeline} g{number} is being retired")
        try:
            yield
        finally:
            # Asked for, because a server notices in its own time that a session is gone. If this one is gone already,
            # so is its lock.
            with suppress(DBAPIError):
                connection.execute(_UNLOCK, asked)
            # The lock is the session's: a pool would keep what could not be asked for.
            connection.invalidate()


def is_worked_on(connection: Connection, pipeline: str, number: int) -> bool:
    """Whether somebody is; if not, nobody begins before this connection's transaction ends."""
    return not connection.scalar(_ALONE, {"pipeline": pipeline, "number": number})
