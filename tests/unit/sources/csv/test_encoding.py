"""An event holds what the row holds, and is read back."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.schemas import load
from kafka_client.registry import Codec
from sources.csv.own_events import encoded
from sources.csv.validate import COLUMNS, EPOCH, SCHEMA
from tests.support.foreign_values import Registered

CODEC = Codec(Registered(), 7, load("sale_event"))
TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
ROW = st.tuples(
    TEXT, st.integers(-2 * 10**15, 7 * 10**15), TEXT, TEXT, TEXT, TEXT, TEXT,
    st.integers(-(2**31), 2**31 - 1), st.integers(-(10**18) + 1, 10**18 - 1), TEXT, st.booleans(),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(ROW, max_size=8), st.integers(1, 2**62))
def test_an_event_is_what_was_in_the_row(rows: list[tuple[object, ...]], first_seq: int) -> None:
    schema = {name: SCHEMA[name] for name in COLUMNS} | {"reversal": pl.Boolean}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    recorded_at = EPOCH + timedelta(microseconds=10**15)
    records = encoded(CODEC, frame, first_seq, recorded_at)
    for number, (row, (key, value)) in enumerate(zip(frame.iter_rows(named=True), records, strict=True)):
        reversal = row.pop("reversal")
        sign = -1 if reversal else 1
        assert key == row["sale_id"].encode()
        assert CODEC.decode(value or b"") == row | {
            "source": "csv", "seq": first_seq + number, "operation": "REVERSAL" if reversal else "SALE",
            "sold_at": EPOCH + timedelta(microseconds=row["sold_at"]), "recorded_at": recorded_at,
            "quantity": sign * row["quantity"], "amount": sign * Decimal(row["amount"]).scaleb(-4),
        }  # fmt: skip
