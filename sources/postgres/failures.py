"""What PostgreSQL's failures mean to capture: what passes by itself, and what a person has to mend.

A connection that is refused names no SQLSTATE (libpq keeps it to itself) and its text is in the server's language, so
all of those are waited for: a password that was rotated or a server that starts is gone on with by itself.
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

# `pg_replication_slots` says why since PostgreSQL 17; before, there was one reason on a primary.
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
    """Refused for what is refused again however often it is tried."""
    line = one_line(text)
    if sqlstate == INSUFFICIENT_PRIVILEGE:
        return Refused(f"PostgreSQL: {line}")
    if sqlstate == LIMIT_EXCEEDED:
        return Refused(
            f"PostgreSQL has no replication slot left ({line}): drop one that nobody needs, "
            "select slot_name, active from pg_replication_slots; select pg_drop_replication_slot('…'); "
            "or alter system set max_replication_slots = …; and restart PostgreSQL"
        )
    if sqlstate == UNDEFINED_FILE:
        return Refused(
            f"PostgreSQL lacks a file ({line}): if it is WAL, as after pg_resetwal, changes since the position "
            "are not known any more, and nothing is guessed: start anew with another slot and empty topics"
        )
    return Retriable(f"PostgreSQL: {line}", on="postgres")


def one_line(text: str) -> str:
    return " ".join(text.split())


def invalidated(reason: str | None) -> str:
    """What became of a slot, in words, by the server's `invalidation_reason`; empty: nothing."""
    return "" if reason is None else _LOST.get(reason, f"was invalidated ({reason})")


def gone(slot: str, how: str) -> str:
    return (
        f"the replication slot {slot} {how}: changes since the ledger's position are not known any more, and "
        "nothing is guessed. Start anew with another slot and empty topics"
    )
