"""Whether a server's stream is the history that the position was written in. Pure.

System id and timeline do not suffice: a server that was restored from a copy of its disk has both, and lacks what
came after the copy. Its slot was restored as well, so the stream is read from where the slot is confirmed and not
from the position: what it shows in between has to be what was in the log already. WAL is one line, so a transaction
that has the same place, id and time on both sides proves everything before it; and none must have come after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from kafka_client.errors import Refused
from sources.postgres.lsn import lsn_text
from sources.postgres.pgoutput import Begin

# More changes than a transaction can have.
ALL = 1 << 62


@dataclass(frozen=True)
class StreamPosition:
    """Every transaction whose commit is below `lsn` is done, and `rows` changes of the one at `cut`."""

    lsn: int
    cut: int = 0
    rows: int = 0


START = StreamPosition(0)


@dataclass(frozen=True)
class Witness:
    """What a position stores of the history that it was written in.

    `last`: the newest transaction below it that changed the table; NONE if there was none since the slot was created.
    `cut`: the one that was cut, if one was. None: the position was written before witnesses were kept.
    """

    last: Begin | None
    cut: Begin | None = None


NONE = Begin(0, 0, 0)
UNCHANGED_TABLE = Witness(NONE)


def not_this_history(what: str) -> Refused:
    """The server's history is not the one that was captured."""
    return Refused(
        f"the server was put back to an earlier state (a copy of its disk, a snapshot), or its slot was: {what}. "
        "What was sold between that state and the position is in the log, what was sold instead is not, and nothing is "
        "guessed. Put the server back to where it was, or start anew with another slot and empty topics: "
        "docs/operations.md, When the replication slot is lost"
    )


class History:
    """Compares what a session's stream shows below its position with the position's witness."""

    def __init__(self, place: StreamPosition, witness: Witness, confirmed: int) -> None:
        """`confirmed`: the slot's position when the stream began, which shows nothing that was committed before."""
        self._place = place
        self._witness = witness
        self._confirmed = confirmed
        self._shown = NONE
        # The newest transaction that changed the table.
        self.last = witness.last
        # Whether everything was compared; before that nothing may be written.
        self.is_proven = confirmed >= place.lsn and not place.cut

    def done(self, begin: Begin) -> int:
        """How many changes of this transaction are in the log. Raises Refused if it is of another history."""
        place = self._place
        if begin.lsn < max(place.lsn, place.cut):
            return ALL
        if begin.lsn == place.cut:
            if self._witness.cut not in (None, begin):
                raise not_this_history(
                    f"{_text(self._witness.cut)} was taken in part, and now there is {_text(begin)}"
                )
            self.is_proven = True
            return place.rows
        self.reached(begin.lsn)
        return 0

    def changed(self, begin: Begin, rows: int) -> None:
        """The stream has shown this transaction whole, with so many changes of the table."""
        self.last = begin
        if begin.lsn < self._place.lsn:
            self._shown = begin
        elif begin.lsn < self._place.cut:
            raise not_this_history(f"the log does not have {_text(begin)}")
        elif begin.lsn == self._place.cut and rows < self._place.rows:
            raise not_this_history(
                f"{_text(begin)} has {rows} changes, of which {self._place.rows} were taken"
            )

    def is_decided_by(self, lsn: int) -> bool:
        """Whether everything that has to be compared was committed below `lsn`."""
        place = self._place
        return lsn > place.cut if place.cut else lsn >= place.lsn

    def reached(self, lsn: int) -> None:
        """The stream has shown everything that was committed below `lsn`. Raises Refused if the witness is missing."""
        if self.is_proven or not self.is_decided_by(lsn):
            return
        if self._place.cut:
            cut = self._witness.cut or Begin(self._place.cut, 0, 0)
            raise not_this_history(f"{_text(cut)} was taken in part and is not there")
        last = self._witness.last
        if last is not None:
            expected = last if last.lsn >= self._confirmed else NONE
            if self._shown != expected:
                raise not_this_history(
                    f"the last change of the table between {lsn_text(self._confirmed)} and "
                    f"{lsn_text(self._place.lsn)} was {_text(expected)}, and now is {_text(self._shown)}"
                )
        self.is_proven = True


def _text(transaction: Begin | None) -> str:
    if transaction is None or transaction == NONE:
        return "none"
    if not transaction.xid:
        return f"the transaction at {lsn_text(transaction.lsn)}"
    at = datetime.fromtimestamp(transaction.committed_at / 1_000_000, UTC)
    return (
        f"transaction {transaction.xid} at {lsn_text(transaction.lsn)}, committed {at:%Y-%m-%d %H:%M:%S.%f}Z"
    )
