"""The start of a session: fence, read the position, compare it with the server, create the slot if there is none.

Everything that could mean lost changes is detected here, before the stream begins; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import replace

from contracts.times import EPOCH
from kafka_client.errors import Refused
from observability import logs
from sources.events_topic import EventsTopic
from sources.position_store import PositionStore, SourceOffset
from sources.postgres.capture_state import CaptureState
from sources.postgres.database import Database, Slot
from sources.postgres.failures import gone
from sources.postgres.history import StreamPosition, not_this_history
from sources.postgres.lsn import lsn_text
from sources.postgres.publication import Published

_log = logs.get(__name__)

# After a change of the topic: its log is not complete any more.
ANEW = "Start anew with another slot and empty topics"


def begin(
    store: PositionStore, database: Database, published: Published, events: EventsTopic
) -> tuple[SourceOffset, CaptureState, int]:
    """1. fence a predecessor  2. read the position  3. check it against the server and the topic of the events
    4. begin the stream.

    Returns the position, and where the slot was confirmed when its stream began. Raises Refused with what to do.
    """
    store.open()
    published.check()
    slot = database.find_slot()
    identity = database.identity()
    topic = events.identity()
    if store.position is None:
        if store.next_seq > 1:
            raise Refused(
                "source-positions holds no position of postgres, but the log holds its events up to seq "
                f"{store.next_seq - 1}: a first reading of the table would count every sale a second time. Restore "
                "the topic source-positions from a backup, or start anew with empty topics"
            )
        if slot is not None:
            raise Refused(
                f"the slot {database.slot} exists, but source-positions does not record it: it is another program's, "
                "or the topics were lost. Set ELECTRORED_SALES_SLOT to another name, or: "
                f"select pg_drop_replication_slot('{database.slot}');"
            )
        # Written first, so that after a crash the slot is recognised as ours.
        position = SourceOffset(1, EPOCH, CaptureState(identity, database.slot).to_json())
        store.write(position, {})
    else:
        position = store.position
    state = CaptureState.from_json(position.detail)
    if (state.identity, state.slot) != (identity, database.slot):
        raise Refused(
            f"the stored position is of slot {state.slot} on system {state.identity.system}, timeline "
            f"{state.identity.timeline}; this is slot {database.slot} on system {identity.system}, timeline "
            f"{identity.timeline}. Positions of one mean nothing on the other: connect the former, or start anew with "
            "empty topics"
        )
    published.check_name(state.table)
    if state.topic[0]:
        events.check(state.topic, ANEW)
    if state.phase != "opening":
        published.check_history(state.published, state.shape)
    state = replace(state, table=published.oid, topic=topic, published=published.mark, shape=published.kept)
    if state.phase == "opening":
        position, state = _make_slot(store, database, slot, state)
    elif slot is None:
        raise Refused(gone(state.slot, "is gone"))
    elif slot.lost:
        raise Refused(gone(state.slot, slot.lost))
    else:
        _free(database, slot)
    confirmed = database.stream().confirmed_lsn
    _check_reach(state, confirmed, database.now().lsn)
    return position, state, confirmed


def _make_slot(
    store: PositionStore, database: Database, slot: Slot | None, state: CaptureState
) -> tuple[SourceOffset, CaptureState]:
    """Create the slot before the first chunk is read: every change is in the chunks or in the stream."""
    if slot is not None:
        _free(database, slot)
        database.drop_slot()
    _log.info("creating the slot; running transactions have to end first", slot=database.slot)
    lsn, base = database.create_slot()
    state = replace(state, place=StreamPosition(lsn), phase="reading", base=base)
    position = SourceOffset(1, EPOCH, state.to_json())
    store.write(position, {})
    return position, state


def _check_reach(state: CaptureState, confirmed: int, flushed: int) -> None:
    """The slot must not be beyond the position, and the position not beyond the server."""
    place = state.place
    if confirmed > max(place.lsn, place.cut):
        how = (
            f"stands at {lsn_text(confirmed)}, beyond the stored position {lsn_text(place.lsn)}: it was recreated "
            "or moved by another program, or the topics lost their end"
        )
        raise Refused(gone(state.slot, how))
    known = max(place.lsn, state.seen)
    if known > flushed:
        raise not_this_history(
            f"the log was written up to {lsn_text(known)}, and the server's WAL ends at {lsn_text(flushed)}"
        )


def _free(database: Database, slot: Slot) -> None:
    """Its holder is fenced already: a process that hangs, or whose connection's end was not noticed."""
    if slot.active_pid is not None:
        _log.warning("ending the predecessor that holds the slot", slot=database.slot, pid=slot.active_pid)
        database.free_slot(slot.active_pid)
