"""The start of a session: fence, read the position, hold it against the server, make the slot if there is none.

Everything that could mean lost changes is found here, before the stream begins; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import replace

from psycopg2 import extensions

from observability import logs
from sources.errors import Refused
from sources.ledger import Ledger, Position
from sources.postgres.database import Database, Slot, gone
from sources.postgres.events import EventsTopic
from sources.postgres.published import Published
from sources.postgres.rows import EPOCH
from sources.postgres.stream import Place, lsn_text
from sources.postgres.where import Where

_log = logs.get(__name__)


def begin(
    ledger: Ledger,
    database: Database,
    published: Published,
    replication: extensions.connection,
    events: EventsTopic,
) -> tuple[Position, Where]:
    """1. fence a predecessor  2. read the position  3. check it against the server and the topic of the events.

    Gives where to stream from, the slot made and free. Raises Refused with what a person can do.
    """
    ledger.open()
    published.check()
    slot = database.find_slot()
    identity = database.identity(replication)
    topic = events.identity()
    if ledger.position is None:
        if ledger.next_seq > 1:
            raise Refused(
                "source-positions holds no position of postgres, but the log holds its events up to seq "
                f"{ledger.next_seq - 1}: a first reading of the table would count every sale a second time. Restore "
                "the topic source-positions from a backup, or start anew with empty topics"
            )
        if slot is not None:
            raise Refused(
                f"the slot {database.slot} exists, but the ledger knows nothing of it: it is somebody else's, or the "
                "topics were lost. Set ELECTRORED_SALES_SLOT to another name, or: "
                f"select pg_drop_replication_slot('{database.slot}');"
            )
        # Written first, so that a slot that is found after a crash is known to be ours.
        position = Position(1, EPOCH, Where(identity, database.slot).to_json())
        ledger.write(position, {})
    else:
        position = ledger.position
    where = Where.from_json(position.detail)
    if (where.identity, where.slot) != (identity, database.slot):
        raise Refused(
            f"the ledger's position is of slot {where.slot} on system {where.identity.system}, timeline "
            f"{where.identity.timeline}; this is slot {database.slot} on system {identity.system}, timeline "
            f"{identity.timeline}. Positions of one mean nothing on the other: connect the former, or start anew with "
            "empty topics"
        )
    published.check_name(where.table)
    if where.topic[0]:
        events.check(where.topic)
    if where.phase != "opening":
        published.check_mark(where.published)
    where = replace(where, table=published.oid, topic=topic, published=published.mark)
    if where.phase == "opening":
        return _make_slot(ledger, database, replication, slot, where)
    _check_slot(database, slot, where)
    return position, where


def _make_slot(
    ledger: Ledger, database: Database, replication: extensions.connection, slot: Slot | None, where: Where
) -> tuple[Position, Where]:
    """The slot is there before the first chunk is read: what is not in the one is in the other."""
    if slot is not None:
        _free(database, slot)
        database.drop_slot()
    _log.info("making the slot; running transactions have to end first", slot=database.slot)
    lsn, base = database.create_slot(replication)
    where = replace(where, place=Place(lsn), phase="reading", base=base)
    position = Position(1, EPOCH, where.to_json())
    ledger.write(position, {})
    return position, where


def _check_slot(database: Database, slot: Slot | None, where: Where) -> None:
    place = where.place
    if slot is None:
        raise Refused(gone(where.slot, "is gone"))
    if slot.wal_status == "lost":
        raise Refused(gone(where.slot, "has lost its WAL (max_slot_wal_keep_size)"))
    if slot.confirmed_lsn > max(place.lsn, place.cut):
        how = (
            f"stands at {lsn_text(slot.confirmed_lsn)}, beyond the ledger's {lsn_text(place.lsn)}: it was made again "
            "or moved by somebody else, or the topics lost their end"
        )
        raise Refused(gone(where.slot, how))
    _free(database, slot)


def _free(database: Database, slot: Slot) -> None:
    """Whoever holds it is fenced already: a process that hangs, or whose connection's end was not noticed."""
    if slot.active_pid is not None:
        _log.warning("ending the predecessor that holds the slot", slot=database.slot, pid=slot.active_pid)
        database.free_slot(slot.active_pid)
