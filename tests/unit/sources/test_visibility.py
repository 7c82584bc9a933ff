"""What a snapshot sees, and transaction ids that the stream names by 32 of their 64 bits."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.postgres.snapshot import Visible, copied_rows, full_xid

EPOCH = 1 << 32


def test_a_snapshot_sees_what_ended_before_it() -> None:
    seen = Visible.parse("100:110:103,105")
    assert {xid for xid in range(98, 113) if seen.sees(xid)} == {*range(98, 110)} - {103, 105}
    assert Visible.parse("7:7:").sees(6)
    assert not Visible.parse("7:7:").sees(7)


def test_a_later_snapshot_must_see_all_that_the_slots_own_saw() -> None:
    base = Visible.parse("100:110:103,105")
    assert Visible.parse("103:110:103,105").sees_all_of(base)
    assert Visible.parse("111:111:").sees_all_of(base)
    # 104 was in the log before the slot, but is not visible yet.
    assert not Visible.parse("103:112:103,104").sees_all_of(base)
    assert not Visible.parse("100:109:103,105").sees_all_of(base)


@pytest.mark.parametrize(
    ("xid", "near", "full"),
    [
        (100, 90, 100),
        (5, 3 * EPOCH - 10, 3 * EPOCH + 5),
        (EPOCH - 5, 3 * EPOCH + 10, 3 * EPOCH - 5),
        (7, 2 * EPOCH + 7, 2 * EPOCH + 7),
    ],
)
def test_an_xid_gets_the_epoch_that_is_nearest(xid: int, near: int, full: int) -> None:
    assert full_xid(xid, near) == full


@given(st.integers(3, 1 << 62), st.integers(-(2**31) + 1, 2**31 - 1))
def test_an_xid_is_itself_again(xid: int, distance: int) -> None:
    assert full_xid(xid % EPOCH, xid + distance) == xid


def test_epochs_decide_what_is_visible() -> None:
    seen = Visible.parse(f"{3 * EPOCH + 10}:{3 * EPOCH + 20}:{3 * EPOCH + 12}")
    assert seen.sees(full_xid(EPOCH - 4, seen.xmax))
    assert not seen.sees(full_xid(12, seen.xmax))
    assert not seen.sees(full_xid(25, seen.xmax))


def test_rows_of_a_copy_are_read_to_the_end() -> None:
    head = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    body = struct.pack(">hi2si", 2, 2, b"ab", -1) + struct.pack(">hi0si1s", 2, 0, b"", 1, b"c")
    assert list(copied_rows(head + body + struct.pack(">h", -1))) == [[b"ab", None], [b"", b"c"]]
    assert list(copied_rows(head + struct.pack(">h", -1))) == []
