"""The start of a session: fence, read the position, hold it against the server, make the slot if there is none.

Everything that could mean lost changes is found here, before the stream begins; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import replace

from kafka_client.errors import Refused
from observability import logs
from sources.position_store import PositionStore, SourceOffset
from sources.postgres.capture_state import CaptureState
from sources.postgres.database import Database, Slot
from sources.postgres.events import EventsTopic
from sources.postgres.failures import gone
from sources.postgres.history import Place, not_this_history
from sources.postgres.lsn import lsn_text
from sources.postgres.publication import Published
from sources.postgres.rows import EPOCH

_log = logs.get(__name__)


def begin(
    ledger: PositionStore, database: Database, published: Published, events: EventsTopic
) -> tuple[SourceOffset, CaptureState, int]:
    """1. fence a predecessor  2. read the position  3. check it against the server and the topic of the events
    4. begin the stream.

    Gives the position, and where the slot was confirmed when its stream began. Raises Refused with what to do.
    """
    ledger.open()
    published.check()
    slot = database.find_slot()
    identity = database.identity()
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
        position = SourceOffset(1, EPOCH, CaptureState(identity, database.slot).to_json())
        ledger.write(position, {})
    else:
        position = ledger.position
    where = CaptureState.from_json(position.detail)
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
        published.check_history(where.published, where.shape)
    where = replace(where, table=published.oid, topic=topic, published=published.mark, shape=published.kept)
    if where.phase == "opening":
        position, where = _make_slot(ledger, database, slot, where)
    elif slot is None:
        raise Refused(gone(where.slot, "is gone"))
    elif slot.lost:
        raise Refused(gone(where.slot, slot.lost))
    else:
        _free(database, slot)
    confirmed = database.stream().confirmed_lsn
    _check_reach(where, confirmed, database.now().lsn)
    return position, where, confirmed


def _make_slot(
    ledger: PositionStore, database: Database, slot: Slot | None, where: CaptureState
) -> tuple[SourceOffset, CaptureState]:
    """The slot is there before the first chunk is read: what is not in the one is in the other."""
    if slot is not None:
        _free(database, slot)
        database.drop_slot()
    _log.info("making the slot; running transactions have to end first", slot=database.slot)
    lsn, base = database.create_slot()
    where = replace(where, place=Place(lsn), phase="reading", base=base)
    position = SourceOffset(1, EPOCH, where.to_json())
    ledger.write(position, {})
    return position, where


def _check_reach(where: CaptureState, confirmed: int, flushed: int) -> None:
    """The slot must not be beyond the position, and the position not beyond the server."""
    place = where.place
    if confirmed > max(place.lsn, place.cut):
        how = (
            f"stands at {lsn_text(confirmed)}, beyond the ledger's {lsn_text(place.lsn)}: it was made again "
            "or moved by somebody else, or the topics lost their end"
        )
        raise Refused(gone(where.slot, how))
    known = max(place.lsn, where.seen)
    if known > flushed:
        raise not_this_history(
            f"the log was written up to {lsn_text(known)}, and the server's WAL ends at {lsn_text(flushed)}"
        )


def _free(database: Database, slot: Slot) -> None:
    """Whoever holds it is fenced already: a process that hangs, or whose connection's end was not noticed."""
    if slot.active_pid is not None:
        _log.warning("ending the predecessor that holds the slot", slot=database.slot, pid=slot.active_pid)
        database.free_slot(slot.active_pid)
