"""Row 1: a server that was put back shows another history below the position, or none."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import pytest

from kafka_client.errors import Refused
from sources.postgres.history import NONE, History, StreamPosition, Witness
from sources.postgres.pgoutput import Begin, begin
from sources.postgres.stream import Stream
from tests.support import pgoutput_messages as wire

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LAST = begin(wire.begin(40, NOON, xid=9))


def resumed(place: StreamPosition, witness: Witness, confirmed: int) -> Stream:
    made = Stream("public", "sales", wire.RELID, place, History(place, witness, confirmed), wire.Catalog())
    made.feed(wire.relation())
    made.feed(wire.relation(relid=9, name="stores", columns={"id": 23}))
    return made


def transaction(
    lsn: int, at: datetime = NOON, xid: int = 9, rows: int = 1, relid: int = wire.RELID
) -> list[bytes]:
    row = wire.sale("a") if relid == wire.RELID else [b"x"]
    return [wire.begin(lsn, at, xid), *[wire.insert([*row], relid)] * rows, wire.commit(lsn, lsn + 5, at)]


SAME = transaction(40)
# What the slot, confirmed at 20, shows below the position 100 before it comes to what is behind.
ANOTHER_HISTORY: dict[str, Sequence[bytes]] = {
    "nothing": [],
    "other tables alone": transaction(40, relid=9),
    "another time": transaction(40, datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC)),
    "another id": transaction(40, xid=10),
    "another place": transaction(48),
    "one that the log does not have": [*SAME, *transaction(60, xid=11)],
    "one before it alone": transaction(30, xid=8),
}


@pytest.mark.parametrize("behind", ["a transaction", "silence"])
@pytest.mark.parametrize("shown", ANOTHER_HISTORY)
def test_row_1_another_history_below_the_position_is_refused(shown: str, behind: str) -> None:
    made = resumed(StreamPosition(100), Witness(LAST), confirmed=20)
    for message in ANOTHER_HISTORY[shown]:
        made.feed(message)
    made.pass_to(99)
    assert not made.is_proven
    go_on = partial(made.pass_to, 100) if behind == "silence" else partial(made.feed, wire.begin(100, xid=12))
    with pytest.raises(Refused, match="was put back"):
        go_on()
    assert made.take() == []


@pytest.mark.parametrize(
    ("last", "confirmed", "shown"),
    [
        # As after a crash of the server: the slot was confirmed less than capture has.
        (LAST, 20, [*transaction(30, xid=8), *SAME, *transaction(60, relid=9)]),
        (LAST, 40, SAME),
        (LAST, 41, transaction(60, relid=9)),
        (NONE, 20, []),
        # Written before a witness was kept.
        (None, 20, SAME),
        (None, 20, []),
    ],
)
def test_row_1_the_same_history_is_gone_on_with(
    last: Begin | None, confirmed: int, shown: list[bytes]
) -> None:
    made = resumed(StreamPosition(100), Witness(last), confirmed)
    for message in shown:
        made.feed(message)
    assert not made.is_proven
    for message in transaction(100, xid=12):
        made.feed(message)
    assert made.is_proven
    assert [transaction.begin.lsn for transaction in made.take()] == [100]
    assert made.witness.last is not None
    assert made.witness.last.lsn == 100


def test_row_1_the_first_sale_below_the_position_is_another_history() -> None:
    made = resumed(StreamPosition(100), Witness(NONE), confirmed=20)
    for message in transaction(60):
        made.feed(message)
    with pytest.raises(Refused, match=r"was none, and now is transaction 9 at 0/0000003C"):
        made.pass_to(100)


CUT = begin(wire.begin(120, NOON, xid=9))


def test_row_1_a_cut_transaction_has_to_come_again() -> None:
    place, witness = StreamPosition(100, 120, 2), Witness(LAST, CUT)
    made = resumed(place, witness, confirmed=100)
    made.pass_to(110)
    assert not made.is_proven
    for message in transaction(120, rows=3)[:-1]:
        made.feed(message)
    assert made.is_proven
    assert made.place == StreamPosition(110, 120, 3)
    assert made.witness == witness
    made.feed(transaction(120)[-1])
    assert [len(transaction.events) for transaction in made.take()] == [1]
    assert made.witness == Witness(CUT)


@pytest.mark.parametrize(
    "shown",
    [
        transaction(120, xid=10, rows=3),
        transaction(120, datetime(2026, 1, 2, tzinfo=UTC), rows=3),
        transaction(120, rows=1),
        transaction(110, rows=3),
        transaction(130, rows=3),
    ],
)
def test_row_1_another_transaction_where_one_was_cut_is_refused(shown: list[bytes]) -> None:
    made = resumed(StreamPosition(100, 120, 2), Witness(LAST, CUT), confirmed=100)
    with pytest.raises(Refused, match="was put back"):
        deque(map(made.feed, shown))
    assert made.take() == []


def test_row_1_silence_where_a_transaction_was_cut_is_refused() -> None:
    made = resumed(StreamPosition(100, 120, 2), Witness(LAST, CUT), confirmed=100)
    with pytest.raises(Refused, match="was taken in part and is not there"):
        made.pass_to(121)
