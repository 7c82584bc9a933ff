"""Records ↔ rows: what is in doubt is not read, and what is written is what columns write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.engine.aggregates import money, text, timestamp, whole
from streaming.engine.blocks import zigzag
from streaming.engine.decoding import Decoder
from streaming.engine.row_codec import GroupCodec
from streaming.pipelines.enriched_sales import PAYMENTS
from tests.support.foreign_values import COLUMNS, OWN, SCHEMA, Registered, decoded, own_values, record

FIELDS = (text("name"), whole("count"), money("total"), timestamp("at"), *PAYMENTS.fields)
LONGS = st.integers(-(2**63), 2**63 - 1)
ITEMS = st.fixed_dictionaries(
    {f.name: st.none() | (st.text(max_size=3) if f.is_text else LONGS) for f in PAYMENTS.item}
)
GROUPS = st.fixed_dictionaries(
    {
        "name": st.none() | st.text(),
        "count": st.none() | LONGS,
        "total": st.none() | st.integers(-(2**127) + 1, 2**127 - 1),
        "at": st.none() | LONGS,
        "payments": st.none() | st.lists(ITEMS, max_size=3),
    }
)


@given(GROUPS)
def test_groups_come_back(group: dict[str, object]) -> None:
    codec = GroupCodec(FIELDS)
    written = codec.write(group)
    assert codec.read(b"xx" + written + b"y", 2) == (group, 2 + len(written))


@pytest.mark.parametrize(
    "value",
    [
        b"\x02\x08ab", b"\x02\x01", b"\x04", b"\x01", b"\x02", b"", b"\x02\x02\xff",
        b"\x02" + b"\x80" * 10 + b"\x01", b"\x02" + b"\x80" * 10 + b"\x00", b"\x02" + b"\xff" * 9 + b"\x02",
    ],
    ids=[
        "longer than the bytes", "of negative length", "a third branch", "a negative branch", "without a length",
        "nothing", "no UTF-8", "11 bytes of a length", "11 bytes of 0", "65 bits",
    ],
)  # fmt: skip
def test_bytes_in_doubt_are_no_text(value: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        GroupCodec([text("name")]).read(value, 0)


@pytest.mark.parametrize(
    "number", [b"\x80" * 10 + b"\x00", b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x00", b"\x82\x00"]
)
def test_a_long_that_is_written_like_no_other_has_one_fate(number: bytes) -> None:
    known = Registered({OWN: (record(), "AVRO")})
    value = own_values(2)[1]
    source, seq = zigzag(8) + b"postgres", zigzag(1)
    assert value.count(source + seq) == 1
    decoded(Decoder(SCHEMA, COLUMNS, known.schema), [value.replace(source + seq, source + number)])


@pytest.mark.parametrize("size", [0, 1, 2, 16, 17])
def test_an_amount_of_any_size_has_one_fate(size: int) -> None:
    known = Registered({OWN: (record(), "AVRO")})
    value = own_values(1)[0]
    amount = zigzag(3) + (125_000).to_bytes(3, "big")
    assert value.count(amount) == 1
    changed = value.replace(amount, zigzag(size) + (size and 5).to_bytes(size, "big"))
    found = decoded(Decoder(SCHEMA, COLUMNS, known.schema), [changed])
    assert len(found.bad) == (size > 16)
