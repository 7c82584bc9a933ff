"""Row 22: a sound event of another producer may hold anything; it counts or is a dead letter, and raises nothing."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.registry import header
from streaming.pipelines import CURRENT, PIPELINES
from tests.support.drivers import driver_of
from tests.support.events import sale_event

# The last two are the first microseconds outside of the years 1 to 9999.
EDGES = [
    0, 1, -1, 2**31, -(2**31), 2**53, 2**63 - 1, -(2**63), 253_402_300_800_000_000, -62_135_596_800_000_001,
]  # fmt: skip
LONGS = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1)
TEXTS = st.sampled_from(["", "\0", "SALE", "REVERSAL", "EUR", "postgres", "\u202e", "x" * 300]) | st.text(
    max_size=4
)
AMOUNTS = st.integers(-(2**135), 2**135) | st.sampled_from([10**18 - 1, -(10**18)])


def _plain(schema: dict[str, Any]) -> Any:
    """The schema with the bytes that it has, and nothing that they mean: any of them can be written."""
    fields = [
        {"name": f["name"], "type": f["type"]["type"] if isinstance(f["type"], dict) else f["type"]}
        for f in schema["fields"]
    ]
    return fastavro.parse_schema(json.loads(json.dumps(schema | {"fields": fields})))


@pytest.mark.parametrize("name", CURRENT)
@settings(max_examples=25)
@given(data=st.data())
def test_row_22_no_sound_event_raises_anything(name: str, data: st.DataObject) -> None:
    pipeline = PIPELINES[name, CURRENT[name]]
    driver = driver_of(pipeline, input_partitions=1)
    for number, codec in enumerate(driver.event_codecs):
        schema = driver.registry.schema(codec.schema_id)
        plain = _plain(schema)
        count = data.draw(st.integers(1, 4))
        for seq in range(count):
            body = io.BytesIO()
            fastavro.schemaless_writer(body, plain, _record(data, schema, seq))
            driver.logs[number].append(0, b"\xff", header(codec.schema_id) + body.getvalue())
        driver.run()
        assert driver.progress(0, number=number).events == count
    driver.totals()


def _record(data: st.DataObject, schema: dict[str, Any], seq: int) -> dict[str, Any]:
    """Mostly sound, so that what is drawn gets as far as the sums."""
    usual = sale_event(seq, payment_id="p", status="CONFIRMED")
    usual |= dict.fromkeys(("sold_at", "recorded_at", "confirmed_at"), 1_772_366_400_000_000)
    record: dict[str, Any] = {}
    changed = data.draw(st.sets(st.sampled_from([f["name"] for f in schema["fields"]]), max_size=3))
    for field in schema["fields"]:
        name, kind = field["name"], field["type"]
        if kind == "string":
            record[name] = data.draw(TEXTS) if name in changed else usual[name]
        elif kind != "long" and kind["type"] == "bytes":
            amount = data.draw(AMOUNTS) if name in changed else 100_000
            record[name] = amount.to_bytes(amount.bit_length() // 8 + 1, "big", signed=True)
        else:
            record[name] = data.draw(LONGS) if name in changed else usual[name]
    return record
