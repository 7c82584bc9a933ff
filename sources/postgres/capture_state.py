"""The state of change capture, stored as the detail of its position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sources.postgres.database import Identity
from sources.postgres.history import START, UNCHANGED_TABLE, StreamPosition, Witness
from sources.postgres.lsn import lsn_number, lsn_text
from sources.postgres.pgoutput import Begin
from sources.postgres.shape import Shape

# opening: the slot is being created; reading: chunks are outstanding; passing: the stream has not yet passed what
# the chunks saw; done: the stream alone.
Phase = Literal["opening", "reading", "passing", "done"]


@dataclass(frozen=True)
class CaptureState:
    """The position of capture on a server, and the progress of its snapshot.

    `until`: the WAL position that ends the phase `passing`. `base`: the slot's own snapshot. `unseen`: transactions
    whose changes were left to a chunk, and that were not visible yet when this was written. `table`: its oid; 0 in
    what was written before it was kept. `topic`: the id and the partition count of the events' topic; likewise.
    `published`: the mark of the publication; likewise. `witness`: identifies the history of the server; likewise.
    `seen`: the server's WAL when the last chunk was read; chunks may hold what was committed up to there.
    `shape`: the table's; empty in what was written before it was kept.
    """

    identity: Identity
    slot: str
    place: StreamPosition = START
    phase: Phase = "opening"
    base: str = ""
    until: int = 0
    unseen: tuple[int, ...] = ()
    table: int = 0
    topic: tuple[str, int] = ("", 0)
    published: str = ""
    witness: Witness = UNCHANGED_TABLE
    seen: int = 0
    shape: Shape = field(default_factory=Shape)

    def to_json(self) -> dict[str, Any]:
        return {
            "system": self.identity.system,
            "timeline": self.identity.timeline,
            "slot": self.slot,
            "lsn": lsn_text(self.place.lsn),
            "cut": lsn_text(self.place.cut),
            "rows": self.place.rows,
            "snapshot": self.phase,
            "base": self.base,
            "until": lsn_text(self.until),
            "unseen": list(self.unseen),
            "table": self.table,
            "topic": self.topic[0],
            "partitions": self.topic[1],
            "published": self.published,
            "witness": _transaction(self.witness.last),
            "cut_witness": _transaction(self.witness.cut),
            "seen": lsn_text(self.seen),
            "shape": self.shape.to_json(),
        }

    @classmethod
    def from_json(cls, detail: Mapping[str, Any]) -> CaptureState:
        return cls(
            Identity(detail["system"], detail["timeline"]),
            detail["slot"],
            StreamPosition(lsn_number(detail["lsn"]), lsn_number(detail["cut"]), detail["rows"]),
            detail["snapshot"],
            detail["base"],
            lsn_number(detail["until"]),
            tuple(detail["unseen"]),
            detail.get("table", 0),
            (detail.get("topic", ""), detail.get("partitions", 0)),
            detail.get("published", ""),
            Witness(_begin(detail.get("witness")), _begin(detail.get("cut_witness"))),
            lsn_number(detail.get("seen", "0/0")),
            Shape.from_json(detail.get("shape")),
        )


def _transaction(begin: Begin | None) -> dict[str, Any] | None:
    return None if begin is None else {**begin._asdict(), "lsn": lsn_text(begin.lsn)}


def _begin(detail: Mapping[str, Any] | None) -> Begin | None:
    return None if detail is None else Begin(**{**detail, "lsn": lsn_number(detail["lsn"])})
