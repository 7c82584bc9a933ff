"""The decoder of the replication protocol, on bytes as the server sends them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sources.postgres import pgoutput
from sources.postgres.pgoutput import UNCHANGED, Begin, Change, Column, Commit, ProtocolError
from tests.support import pgoutput_messages as wire

AT = datetime(2026, 11, 22, 18, 3, 35, 1, tzinfo=UTC)
MICROS = int(AT.timestamp()) * 1_000_000 + 1


def test_begin_and_commit() -> None:
    lsn, xid = 0x1_0000_0010, 4_000_000_000
    assert pgoutput.begin(wire.begin(lsn, AT, xid)) == Begin(lsn, MICROS, xid)
    assert pgoutput.commit(wire.commit(5, 9, AT)) == Commit(5, 9, MICROS)


def test_a_relation_names_its_columns() -> None:
    relation = pgoutput.relation(wire.relation(columns={"sale_id": 25, "größe": 23}, identity="d"))
    named = (relation.relid, relation.schema, relation.name, relation.identity)
    assert named == (wire.RELID, "public", "sales", "d")
    assert relation.columns == (Column("sale_id", 25), Column("größe", 23))


def test_an_insert_has_a_new_row() -> None:
    change = pgoutput.change(wire.insert([b"a", None, b""]))
    assert change == Change(None, [b"a", None, b""], False)


def test_an_update_has_both_rows_or_a_key_or_only_the_new_one() -> None:
    new = [b"b", wire.UNCHANGED]
    assert pgoutput.change(wire.update([b"a", b"x"], new)) == Change([b"a", b"x"], [b"b", UNCHANGED], False)
    assert pgoutput.change(wire.update([b"a", None], new, b"K")).old_is_key
    assert pgoutput.change(wire.update(None, new)).old is None


def test_a_delete_has_an_old_row() -> None:
    assert pgoutput.change(wire.delete([b"a"])) == Change([b"a"], None, False)
    assert pgoutput.change(wire.delete([b"a"], b"K")).old_is_key


def test_a_truncate_names_its_tables() -> None:
    assert pgoutput.truncated(wire.truncate(3, 5)) == (3, 5)


def test_values_of_any_length() -> None:
    values = [bytes(n) for n in (0, 1, 255, 256, 70_000)]
    assert pgoutput.change(wire.insert([*values])).new == values


@pytest.mark.parametrize(
    "data",
    [
        wire.insert([b"abc"])[:-1],
        b"I" + wire.insert([b"a"])[1:5] + b"X",
        b"I\0\0\0\1N\0\1t\0\0\0\1a",
        wire.update([b"a"], [b"b"])[:-8] + b"X" + bytes(8),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        pgoutput.change(data)


@pytest.mark.parametrize("tail", [[None], [wire.UNCHANGED, None], [b""], [None, b"x", None]])
def test_a_row_may_end_with_values_that_are_not_there(tail: list[object]) -> None:
    expected = [UNCHANGED if value is wire.UNCHANGED else value for value in tail]
    assert pgoutput.change(wire.insert([b"abc", *tail])).new == [b"abc", *expected]
    both = pgoutput.change(wire.update([b"abc", *tail], [b"abc", *tail]))
    assert (both.old, both.new) == ([b"abc", *expected], [b"abc", *expected])


def test_any_cut_message_is_refused() -> None:
    whole = wire.insert([b"abc", b"", b"defgh", None])
    for end in range(8, len(whole)):
        with pytest.raises(ProtocolError):
            pgoutput.change(whole[:end])
