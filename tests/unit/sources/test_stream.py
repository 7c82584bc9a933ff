"""The events of the stream's messages, transaction by transaction."""

from __future__ import annotations

import pytest

from kafka_client.errors import Refused
from sources.postgres.history import UNCHANGED_TABLE, History, StreamPosition
from sources.postgres.lsn import lsn_number, lsn_text
from sources.postgres.pgoutput import ProtocolError
from sources.postgres.rows import ChangeEvent
from sources.postgres.stream import Stream, check_columns
from tests.support import pgoutput_messages as wire


def empty(place: StreamPosition, catalog: wire.Catalog | None = None) -> Stream:
    """A stream whose slot stands at the place."""
    history = History(place, UNCHANGED_TABLE, place.lsn)
    return Stream("public", "sales", wire.RELID, place, history, catalog or wire.Catalog())


def feed(made: Stream, *messages: bytes) -> None:
    for message in messages:
        made.feed(message)


def stream(place: StreamPosition, *messages: bytes) -> Stream:
    made = empty(place)
    feed(made, wire.relation(), *messages)
    return made


def events(made: Stream) -> list[ChangeEvent]:
    return [event for transaction in made.take() for event in transaction.events]


A, B = tuple(wire.sale("a")), tuple(wire.sale("b"))
SWAPPED = {{"city": "country", "country": "city"}.get(name, name): oid for name, oid in wire.TYPES.items()}
# A city that was dropped and added again stands behind the others.
ANEW = [*(name for name in wire.TYPES if name != "city"), "city"]


def test_an_insert_is_a_sale_and_a_delete_a_reversal() -> None:
    made = stream(
        StreamPosition(0), wire.begin(10), wire.insert([*A]), wire.delete([*B]), wire.commit(10, 20)
    )
    assert events(made) == [(False, A), (True, B)]
    assert made.place == StreamPosition(20)


def test_an_update_is_a_reversal_and_a_sale() -> None:
    made = stream(StreamPosition(0), wire.begin(10), wire.update([*A], [*B]), wire.commit(10, 20))
    assert events(made) == [(True, A), (False, B)]


def test_update_of_equal_columns_emits_nothing() -> None:
    columns = wire.TYPES | {"note": 25}
    made = empty(StreamPosition(0))
    feed(made, wire.relation(columns=columns), wire.begin(10), wire.update([*A, b"old"], [*A, b"new"]))
    assert made.place == StreamPosition(0, 10, 1)
    made.feed(wire.commit(10, 20))
    assert events(made) == []
    assert made.place == StreamPosition(20)


def test_an_unchanged_large_value_comes_from_the_old_row() -> None:
    new: list[object] = [*wire.sale("b", product=None)]
    new[6] = wire.UNCHANGED
    made = stream(StreamPosition(0), wire.begin(10), wire.update([*A], new), wire.commit(10, 20))
    assert events(made) == [(True, A), (False, B)]


def test_columns_may_stand_in_any_order_among_others() -> None:
    names = ["note", *reversed(wire.TYPES)]
    made = empty(StreamPosition(0), wire.Catalog(names[1:]))
    feed(
        made,
        wire.relation(columns={name: wire.TYPES.get(name, 25) for name in names}),
        wire.begin(10),
        wire.insert([b"x", *reversed(A)]),
    )
    assert events(made) == [(False, A)]


def test_other_tables_of_the_publication_are_passed_over() -> None:
    made = stream(
        StreamPosition(0), wire.relation(relid=9, name="stores", columns={"id": 23}), wire.begin(10)
    )
    feed(made, wire.insert([b"x"], relid=9), wire.truncate(9))
    assert made.place == StreamPosition(0, 10, 0)
    assert events(made) == []


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (wire.update([*A], [*B], b"K"), "replica identity full"),
        (wire.update(None, [*B]), "replica identity full"),
        (wire.delete([*A], b"K"), "replica identity full"),
        (wire.truncate(9, wire.RELID), "TRUNCATE"),
        (
            wire.relation(columns={name: oid for name, oid in wire.TYPES.items() if name != "city"}),
            "no column city",
        ),
    ],
    ids=["a key alone", "only the new row", "a deleted key", "a truncate", "a dropped column"],
)
def test_what_cannot_be_reversed_stops_before_the_position_moves(message: bytes, reason: str) -> None:
    made = stream(StreamPosition(5), wire.begin(10), wire.insert([*A]))
    with pytest.raises(Refused, match=reason):
        made.feed(message)
    assert made.place == StreamPosition(5, 10, 1)


def test_a_column_of_another_type_is_refused() -> None:
    with pytest.raises(Refused, match=r"public\.sales\.amount has the type type 701, .* numeric is needed"):
        check_columns("public.sales", wire.TYPES | {"amount": 701}, wire.Catalog().type_name)


def test_row_2_the_catalog_is_asked_before_a_change_behind_a_description_is_taken() -> None:
    catalog = wire.Catalog()
    made = empty(StreamPosition(5), catalog)
    feed(made, wire.begin(10, xid=77), wire.relation(relid=9, name="stores", columns={"id": 23}))
    assert catalog.looked == []
    feed(made, wire.relation(), wire.insert([*A]))
    assert catalog.looked == [77]


def test_row_2_columns_that_had_each_others_names_stop_before_the_position_moves() -> None:
    """That the names were changed back does not show in the catalog any more; the order of the columns does."""
    made = stream(StreamPosition(5), wire.begin(10))
    with pytest.raises(Refused, match="had each other's names"):
        made.feed(wire.relation(columns=SWAPPED))
    assert made.place == StreamPosition(5, 10, 0)


def test_row_2_what_was_before_an_accepted_change_has_the_order_of_before() -> None:
    made = empty(StreamPosition(5), wire.Catalog(ANEW, list(wire.TYPES)))
    feed(made, wire.begin(10), wire.relation(), wire.insert([*A]), wire.commit(10, 20))
    columns = {name: wire.TYPES[name] for name in ANEW}
    values = dict(zip(wire.TYPES, B, strict=True))
    feed(made, wire.begin(30), wire.relation(columns=columns), wire.insert([values[name] for name in ANEW]))
    assert events(made) == [(False, A), (False, B)]
    with pytest.raises(Refused, match="stood in another order"):
        made.feed(wire.relation(columns=SWAPPED))


def test_row_2_the_order_of_what_is_in_the_log_is_nobodys_concern_until_a_change_is_taken_by_it() -> None:
    made = empty(StreamPosition(30))
    feed(made, wire.begin(10), wire.relation(columns=SWAPPED), wire.insert([*A]), wire.commit(10, 20))
    assert events(made) == []
    made.feed(wire.begin(30))
    with pytest.raises(Refused, match="had each other's names"):
        made.feed(wire.insert([*A]))
    feed(made, wire.relation(), wire.insert([*A]))
    assert events(made) == [(False, A)]


def test_a_cut_transaction_goes_on_where_it_was_left() -> None:
    rows = [wire.sale(str(n)) for n in range(6)]
    messages = [wire.begin(10), *(wire.insert([*row]) for row in rows), wire.commit(10, 20)]
    first = stream(StreamPosition(5), *messages[:4])
    taken = events(first)
    assert first.is_inside
    assert first.place == StreamPosition(5, 10, 3)
    # The same stream goes on …
    feed(first, *messages[4:])
    assert taken + events(first) == [(False, tuple(row)) for row in rows]
    # … and so does another one that begins there, and is cut once more before it has caught up.
    again = stream(StreamPosition(5, 10, 3), *messages[:2])
    assert again.place == StreamPosition(5, 10, 3)
    assert events(again) == []
    feed(again, *messages[2:])
    assert events(again) == [(False, tuple(row)) for row in rows[3:]]
    assert again.place == StreamPosition(20)


def test_a_transaction_that_is_done_already_is_passed_over() -> None:
    made = stream(StreamPosition(30), wire.begin(10), wire.insert([*A]))
    assert made.place == StreamPosition(30)
    made.feed(wire.commit(10, 20))
    assert made.place == StreamPosition(30)
    feed(made, wire.begin(30), wire.insert([*B]))
    assert events(made) == [(False, B)]


def test_silence_moves_the_place_only_between_transactions() -> None:
    made = stream(StreamPosition(5))
    made.pass_to(8)
    assert made.place == StreamPosition(8)
    made.feed(wire.begin(10))
    made.pass_to(10)
    assert made.place.lsn == 8


def test_batches_keep_transactions_apart() -> None:
    made = stream(StreamPosition(0), wire.begin(10, xid=1), wire.insert([*A]), wire.commit(10, 20))
    feed(made, wire.begin(30, xid=2), wire.insert([*B]))
    assert [(t.begin.xid, len(t.events)) for t in made.take()] == [(1, 1), (2, 1)]
    assert made.take() == []


def test_an_unknown_message_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        stream(StreamPosition(0), b"?")
    with pytest.raises(ProtocolError):
        stream(StreamPosition(0), wire.commit(1, 2))


def test_positions_are_written_as_postgresql_writes_them() -> None:
    assert lsn_text(0x1_0000_002A) == "1/0000002A"
    assert lsn_number("1/2A") == 0x1_0000_002A
