"""PostgreSQL's errors → Retriable, which passes by itself, and Refused, which a person has to mend.

A refused connection has no SQLSTATE (libpq does not expose it) and its text is in the server's language, so all of
those are Retriable: after a rotated password or a restart capture goes on by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import psycopg2

from kafka_client.errors import ElectroRedError, Refused, Retriable

INSUFFICIENT_PRIVILEGE = "42501"
LIMIT_EXCEEDED = "53400"
UNDEFINED_FILE = "58P01"

# `pg_replication_slots` has the reason since PostgreSQL 17; before, there was one reason on a primary.
_LOST = {
    "wal_removed": "has lost its WAL (max_slot_wal_keep_size)",
    "idle_timeout": "was invalidated because it was idle for too long (idle_replication_slot_timeout)",
    "wal_level_insufficient": "was invalidated because wal_level was lowered below logical",
    "rows_removed": "was invalidated because rows of the catalog that it needed were removed",
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn what either driver raises into Refused or Retriable."""
    try:
        yield
    except (psycopg2.Error, psycopg.Error) as error:
        code = error.pgcode if isinstance(error, psycopg2.Error) else error.sqlstate
        raise meaning(code, str(error)) from error


def meaning(sqlstate: str | None, text: str) -> ElectroRedError:
    """Refused for what every retry would raise again."""
    line = one_line(text)
    if sqlstate == INSUFFICIENT_PRIVILEGE:
        return Refused(f"PostgreSQL: {line}")
    if sqlstate == LIMIT_EXCEEDED:
        return Refused(
            f"PostgreSQL has no replication slot left ({line}): drop one that is not needed, "
            "select slot_name, active from pg_replication_slots; select pg_drop_replication_slot('…'); "
            "or alter system set max_replication_slots = …; and restart PostgreSQL"
        )
    if sqlstate == UNDEFINED_FILE:
        return Refused(
            f"PostgreSQL lacks a file ({line}): if it is WAL, as after pg_resetwal, changes since the position "
            "are unknown, and nothing is guessed: start anew with another slot and empty topics"
        )
    return Retriable(f"PostgreSQL: {line}", on="postgres")


def one_line(text: str) -> str:
    return " ".join(text.split())


def invalidated(reason: str | None) -> str:
    """The server's `invalidation_reason` of a slot as text; empty: valid."""
    return "" if reason is None else _LOST.get(reason, f"was invalidated ({reason})")


def gone(slot: str, how: str) -> str:
    return (
        f"the replication slot {slot} {how}: changes since the stored position are unknown, and "
        "nothing is guessed. Start anew with another slot and empty topics"
    )
