"""A PostgreSQL advisory lock per generation, which ends with the session of the process that took it.

Each slice of a replay holds it, shared, on any machine; so a killed job is detected at once, without a timeout.
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
    """Hold the shared lock of the generation. Raises RequestRefused while it is being retired."""
    # Outside of a transaction, which would hold back vacuum for as long as the slice takes.
    with results.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = {"pipeline": pipeline, "number": number}
        if not connection.scalar(_SHARED, key):
            raise RequestRefused(f"{pipeline} g{number} is being retired")
        try:
            yield
        finally:
            # Explicitly, because a server may notice late that a session is gone. If this one is gone already, so is
            # its lock.
            with suppress(DBAPIError):
                connection.execute(_UNLOCK, key)
            # The lock is the session's: a pooled connection would keep one that was not released.
            connection.invalidate()


def is_worked_on(connection: Connection, pipeline: str, number: int) -> bool:
    """Whether a slice holds the lock; if not, none gets it before this connection's transaction ends."""
    return not connection.scalar(_ALONE, {"pipeline": pipeline, "number": number})
