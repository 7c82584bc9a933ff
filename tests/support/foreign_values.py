"""Values under schemas that are not ours, and a registry that has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import polars as pl

from contracts.schemas import load
from kafka_client.registry import Codec
from kafka_client.writer_schemas import MOST_CHARACTERS, UnknownSchema, parse
from streaming.engine.blocks import zigzag
from streaming.engine.decoding import Decoded, Decoder
from tests.support.events import sale_event

SCHEMA = load("sale_event")
COLUMNS = ("source", "seq", "city", "amount", "sold_at")


def event(seq: int) -> dict[str, Any]:
    return sale_event(seq, city="Köln", amount=Decimal("12.5000"))


OWN, FOREIGN = 1, 7


@dataclass
class Registered:
    """What is registered, as a registry gives it: text, and of which kind."""

    texts: dict[int, tuple[str, str]] = field(default_factory=dict)

    def schema(self, schema_id: int) -> Any:
        if schema_id not in self.texts:
            raise UnknownSchema(schema_id)
        return parse(schema_id, *self.texts[schema_id])


def decoded(decoder: Decoder, values: Sequence[bytes | None]) -> Decoded:
    """The values as columns; as rows they are the same, together and each alone (I7)."""
    columns = decoder.decode(values)
    frame = columns.frame.with_columns(pl.col(pl.Decimal).to_physical())
    events = {row.pop("row"): row for row in frame.to_dicts()}
    rows, bad = decoder.rows(values)
    assert (dict(rows), bad) == (events, columns.bad)
    reasons = dict(bad)
    for index, value in enumerate(values):
        alone, refused = decoder.rows([value])
        assert [event for _, event in alone] == ([events[index]] if index in events else [])
        assert [reason for _, reason in refused] == ([reasons[index]] if index in reasons else [])
    return columns


def own_values(count: int = 9) -> list[bytes]:
    codec = Codec(Registered(), OWN, SCHEMA)
    return [codec.encode(event(seq)) for seq in range(count)]


def record(*fields: Any, **changed: Any) -> str:
    """The sale's schema with more fields, or with other types of those that it has."""
    changed_fields = [
        {"name": f["name"], "type": changed.get(f["name"], f["type"])} for f in SCHEMA["fields"]
    ]
    return json.dumps(SCHEMA | {"fields": [*changed_fields, *fields]})


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
MANY: dict[str, Any] = {"type": "record", "name": "M0", "fields": []}
for depth in range(1, 40):
    MANY = {
        "type": "record",
        "name": f"M{depth}",
        "fields": [{"name": "a", "type": MANY}, {"name": "b", "type": f"M{depth - 1}"}],
    }

AVRO_SCHEMAS = {
    "string": '"string"',
    "primitive as an object": '{"type": "string"}',
    "enum": '{"type": "enum", "name": "E", "symbols": ["A", "B"]}',
    "fixed": '{"type": "fixed", "name": "F", "size": 16}',
    "array": '{"type": "array", "items": "long"}',
    "map": '{"type": "map", "values": "string"}',
    "union": '["null", "string"]',
    "union of records": json.dumps(load("source_position")),
    "error": json.dumps(SCHEMA | {"type": "error"}),
    "no text": "",
    "no JSON": "<sale/>",
    "null": "null",
    "number": "1",
    "empty union": "[]",
    "no type": "{}",
    "record without fields": '{"type": "record", "name": "SaleEvent"}',
    "record whose fields are a text": '{"type": "record", "name": "S", "fields": "seq"}',
    "field without a name": '{"type": "record", "name": "S", "fields": [{"type": "long"}]}',
    "record of no fields": '{"type": "record", "name": "S", "fields": []}',
    "unknown type": '{"type": "record", "name": "S", "fields": [{"name": "a", "type": "decimal"}]}',
    "fields are missing": json.dumps(SCHEMA | {"fields": SCHEMA["fields"][:3]}),
    "the field is there twice": record({"name": "city", "type": "string"}),
    "our own column": record({"name": "_prefix", "type": "string"}),
    "recursive": record({"name": "node", "type": NODE}),
    "nothing but recursive": json.dumps(NODE),
    "refers to another subject": record({"name": "x", "type": "com.example.Address"}),
    "array of nothing": record({"name": "x", "type": {"type": "array", "items": "null"}}),
    "array of empty records": record(
        {"name": "x", "type": {"type": "array", "items": {"type": "record", "name": "V", "fields": []}}}
    ),
    "2^40 types": record({"name": "x", "type": MANY}),
    "enormous": record({"name": "x", "type": "string", "doc": "x" * MOST_CHARACTERS}),
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep union": '{"type":' * 50_000 + '"string"' + "}" * 50_000,
    "amount is a double": record(amount="double"),
    "amount is a string": record(amount="string"),
    "amount is bytes": record(amount="bytes"),
    "amount has another scale": record(
        amount={"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}
    ),
    "amount is fixed": record(
        amount={
            "type": "fixed",
            "size": 2**40,
            "name": "D",
            "logicalType": "decimal",
            "precision": 18,
            "scale": 4,
        }
    ),
    "milliseconds": record(sold_at={"type": "long", "logicalType": "timestamp-millis"}),
    "local time": record(sold_at={"type": "long", "logicalType": "local-timestamp-micros"}),
    "a time without a unit": record(sold_at="long"),
    "an unknown logical time": record(sold_at={"type": "long", "logicalType": "timestamp-nanos"}),
    "seq is a string": record(seq="string"),
    "seq is a double": record(seq="double"),
    "city is an enum": record(city={"type": "enum", "name": "C", "symbols": ["Ulm"]}),
    "city is a union": record(city=["null", "string", "long"]),
    "city is a record": record(city={"type": "record", "name": "C", "fields": []}),
    "polars knows no maps": record({"name": "x", "type": {"type": "map", "values": "long"}}),
    "polars knows no such unions": record({"name": "x", "type": ["string", "long"]}),
}
# A schema's text, and its kind.
SCHEMAS = {name: (text, "AVRO") for name, text in AVRO_SCHEMAS.items()} | {
    "JSON Schema": ('{"type": "object", "properties": {"sale_id": {"type": "string"}}}', "JSON"),
    "Protobuf": ('syntax = "proto3"; message Sale { string id = 1; }', "PROTOBUF"),
}

BODIES = {
    "empty": b"",
    "string": zigzag(5) + b"hello",
    "zeros": b"\x00" * 60,
    "ones": b"\xff" * 60,
    "a great count": zigzag(2**62) * 8,
    "a negative count": zigzag(-(2**63)) * 8,
    "deep": zigzag(1) * 50_000,
}
