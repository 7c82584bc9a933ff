"""Events made of columns are what a generic Avro reader reads."""

from __future__ import annotations

import io
from datetime import timedelta
from decimal import Decimal

import fastavro
import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.schemas import load
from kafka_client import avro
from kafka_client.registry import header
from sources.csv.encoding import Encoder, decimals, longs
from sources.csv.validate import COLUMNS, EPOCH, SCHEMA

PARSED = fastavro.parse_schema(load("sale_event"))
LONGS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
ROW = st.tuples(
    TEXT, st.integers(-2 * 10**15, 7 * 10**15), TEXT, TEXT, TEXT, TEXT, TEXT,
    st.integers(-(2**31), 2**31 - 1), st.integers(-(10**18) + 1, 10**18 - 1), TEXT, st.booleans(),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(LONGS, min_size=1, max_size=20))
def test_longs_are_avros(values: list[int]) -> None:
    assert longs(np.array(values, dtype=np.int64)).to_list() == [avro.long(value) for value in values]


@settings(deadline=None)
@given(st.lists(LONGS, min_size=1, max_size=20))
def test_decimals_are_twos_complement(values: list[int]) -> None:
    for value, found in zip(values, decimals(np.array(values, dtype=np.int64)).to_list(), strict=True):
        assert found[0] == 2 * len(found[1:])
        assert int.from_bytes(found[1:], "big", signed=True) == value


@settings(deadline=None)
@given(st.lists(ROW, max_size=8), st.integers(1, 2**62))
def test_an_event_is_what_was_in_the_row(rows: list[tuple[object, ...]], first_seq: int) -> None:
    schema = {name: SCHEMA[name] for name in COLUMNS} | {"reversal": pl.Boolean}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    values = Encoder(7, "csv").encode(frame, first_seq, 10**15)
    assert len(values) == len(rows)
    for number, (row, value) in enumerate(zip(frame.iter_rows(named=True), values, strict=True)):
        assert value[:5] == header(7)
        body = io.BytesIO(value[5:])
        found = fastavro.schemaless_reader(body, PARSED, None)
        assert body.read() == b""
        reversal = row.pop("reversal")
        sign = -1 if reversal else 1
        assert found == row | {
            "source": "csv", "seq": first_seq + number, "operation": "REVERSAL" if reversal else "SALE",
            "sold_at": EPOCH + timedelta(microseconds=row["sold_at"]),
            "recorded_at": EPOCH + timedelta(microseconds=10**15),
            "quantity": sign * row["quantity"], "amount": sign * Decimal(row["amount"]).scaleb(-4),
        }  # fmt: skip
