"""Row 22: whatever stands on a log, and under whatever schema, is one dead letter, and everything else counts."""

from __future__ import annotations

import json
import struct

import fastavro
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.schemas import load
from kafka_client.registry import Codec, header
from kafka_client.writer_schemas import Undecodable, UnknownSchema, parse
from streaming.engine.blocks import Records, zigzag
from streaming.engine.decoding import Decoder
from tests.support.foreign_values import (
    BODIES,
    COLUMNS,
    FOREIGN,
    OWN,
    SCHEMA,
    SCHEMAS,
    Registered,
    decoded,
    event,
    own_values,
    record,
)


def registered(foreign: str, kind: str = "AVRO") -> Registered:
    return Registered({OWN: (json.dumps(SCHEMA), "AVRO"), FOREIGN: (foreign, kind)})


def undecodable(codec: Codec, value: bytes) -> str | None:
    """Why the value cannot be decoded; None if it can."""
    try:
        codec.decode(value)
    except Undecodable as error:
        return str(error)
    return None


@pytest.mark.parametrize("foreign", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_row_22_a_value_of_a_foreign_schema_is_one_dead_letter(foreign: tuple[str, str]) -> None:
    decoder = Decoder(SCHEMA, COLUMNS, registered(*foreign).schema)
    for body in BODIES.values():
        for place in (0, 9):
            values = own_values()
            values.insert(place, header(FOREIGN) + body)
            found = decoded(decoder, values)
            assert [row for row, _ in found.bad] == [place]
            assert f"schema id {FOREIGN}" in found.bad[0][1]
            assert found.frame["seq"].to_list() == list(range(9))


@pytest.mark.parametrize("foreign", SCHEMAS.keys())
def test_row_22_a_foreign_value_is_undecodable_one_by_one(foreign: str) -> None:
    """As sources, sink, publisher, observer and command read."""
    for reader in ("sale_event", "source_position", "dead_letter", "enriched_sale"):
        codec = Codec(registered(*SCHEMAS[foreign]), OWN, load(reader))
        for name, body in BODIES.items():
            reason = undecodable(codec, header(FOREIGN) + body)
            if reason is None:
                # By Avro's own rules a reader's fields may all have defaults, or be zero.
                assert name == "zeros" or (reader, foreign) == ("source_position", "union of records")
            else:
                assert f"schema id {FOREIGN}" in reason


def test_row_22_a_schema_of_ours_that_others_write_a_little_differently_is_read() -> None:
    """Java's strings, an int for a long, fields that may be null, fields of theirs, another order."""
    java = {"type": "string", "avro.java.string": "String"}
    text = record(
        {"name": "shop", "type": {"type": "enum", "name": "Shop", "symbols": ["A", "B"]}},
        {"name": "lines", "type": {"type": "array", "items": ["null", "long"]}},
        {"name": "at", "type": {"type": "fixed", "name": "At", "size": 3}},
        city=java,
        quantity="int",
        sale_id=["null", {"type": "string", "logicalType": "sale"}],
        seq=["long", "null"],
    )
    schema = json.loads(text)
    schema["fields"].reverse()
    known = registered(json.dumps(schema))
    codec = Codec(known, FOREIGN, schema)
    theirs = {"shop": "B", "lines": [1, None, 3], "at": b"abc"}
    values = [*own_values(3), *(codec.encode(event(seq) | theirs) for seq in range(3, 6)), *own_values(1)]
    found = decoded(Decoder(SCHEMA, (*COLUMNS, "sale_id", "quantity"), known.schema), values)
    assert found.bad == []
    assert found.frame["seq"].to_list() == [0, 1, 2, 3, 4, 5, 0]
    assert found.frame["quantity"].to_list() == [1] * 7
    reader = Codec(known, OWN, SCHEMA)
    assert [reader.decode(value)["seq"] for value in values] == [0, 1, 2, 3, 4, 5, 0]


def test_row_22_an_amount_of_more_digits_than_its_type_is_bad_whatever_the_others_are() -> None:
    """Two of the greatest that fit into 16 bytes would overflow when they are added."""
    value = own_values(1)[0]
    amount = zigzag(3) + (125_000).to_bytes(3, "big")
    assert value.count(amount) == 1
    sizes = {10**18 - 1: True, 10**18: False, 2**127 - 1: False, -(2**127): False, 1 - 10**18: True}
    for number, is_sound in sizes.items():
        changed = value.replace(amount, zigzag(16) + number.to_bytes(16, "big", signed=True))
        found = decoded(Decoder(SCHEMA, COLUMNS, registered('"string"').schema), [*own_values(3), changed])
        assert (found.bad == []) == is_sound, number
        assert found.frame.height == 3 + is_sound


PRIMITIVES = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
LOGICAL = st.sampled_from(
    [
        {"type": "long", "logicalType": "timestamp-micros"},
        {"type": "long", "logicalType": "timestamp-millis"},
        {"type": "int", "logicalType": "date"},
        {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4},
        {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 4},
        {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 4},
        {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"},
        {"type": "enum", "name": "E", "symbols": ["A", "B"]},
        {"type": "enum", "name": "E", "symbols": []},
        {"type": "fixed", "name": "F", "size": -1},
        {"type": "fixed", "name": "F", "size": 2**63},
        "Outer",
        None,
        {"type": "record", "name": 5, "fields": [3]},
    ]
)
NAMES = st.sampled_from([*COLUMNS, "sale_id", "_prefix", "", "x", "Ä"])
TYPES = st.recursive(
    PRIMITIVES | LOGICAL,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(lambda of: {"type": "array", "items": of}, inner)
        | st.builds(lambda of: {"type": "map", "values": of}, inner)
        | st.builds(
            lambda fields: {
                "type": "record",
                "name": "Outer",
                "fields": [{"name": name, "type": of} for name, of in fields],
            },
            st.lists(st.tuples(NAMES, inner), max_size=4),
        )
    ),
    max_leaves=8,
)
ANY_SCHEMA = st.one_of(
    TYPES.map(json.dumps),
    st.dictionaries(st.sampled_from([f["name"] for f in SCHEMA["fields"]]), TYPES, max_size=2).map(
        lambda changed: record(**changed)
    ),
    st.lists(TYPES, max_size=2).map(
        lambda more: record(*({"name": f"x{n}", "type": of} for n, of in enumerate(more)))
    ),
    st.text(max_size=20),
)
ANY_BODY = st.one_of(
    st.binary(max_size=80),
    st.just(own_values(1)[0][5:]),
    st.lists(
        st.one_of(
            st.integers(-(2**63), 2**63 - 1).map(zigzag),
            st.binary(max_size=6).map(lambda text: zigzag(len(text)) + text),
            st.floats().map(lambda number: struct.pack("<d", number)),
        ),
        max_size=16,
    ).map(b"".join),
)


@given(text=ANY_SCHEMA, body=ANY_BODY, place=st.integers(0, 5), own=st.booleans())
def test_row_22_no_schema_and_no_bytes_raise_anything_and_the_others_come_through(
    text: str, body: bytes, place: int, own: bool
) -> None:
    values: list[bytes | None] = [*own_values(6)]
    values[place] = header(OWN if own else FOREIGN) + body
    known = registered(text)
    found = decoded(Decoder(SCHEMA, COLUMNS, known.schema), values)
    others = found.frame.filter(pl.col("row") != place)
    assert others["seq"].to_list() == [row for row in range(6) if row != place]
    assert {row for row, _ in found.bad} <= {place}
    for reader in (SCHEMA, load("source_position")):
        assert "\n" not in (undecodable(Codec(known, OWN, reader), values[place] or b"") or "")


@given(
    values=st.lists(
        st.one_of(st.none(), st.binary(max_size=30), st.binary(max_size=30).map(header(1).__add__))
    )
)
def test_row_22_no_bytes_raise_anything(values: list[bytes | None]) -> None:
    mixed = [*values, *own_values(2)]
    found = decoded(Decoder(SCHEMA, COLUMNS, registered('"string"').schema), mixed)
    assert found.frame["row"].to_list()[-2:] == [len(values), len(values) + 1]
    assert len(found.bad) + found.frame.height == len(mixed)


@pytest.mark.parametrize("error", [TypeError("a defect of ours"), MemoryError(), KeyboardInterrupt()])
def test_row_22_what_a_sound_value_would_raise_too_makes_no_dead_letters(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    decoder = Decoder(SCHEMA, COLUMNS, registered('"string"').schema)
    assert decoder.decode(own_values()).bad == []

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(Records, "read", broken)
    with pytest.raises(type(error)):
        decoder.decode(own_values())


def test_row_22_a_registry_that_is_away_is_no_fault_of_a_value() -> None:
    def away(_: int) -> None:
        raise ConnectionError("away")

    with pytest.raises(ConnectionError):
        Decoder(SCHEMA, COLUMNS, away).decode(own_values())


def test_row_22_each_unknown_id_is_asked_for_once_a_poll() -> None:
    asked: list[int] = []

    def nothing(schema_id: int) -> None:
        asked.append(schema_id)
        raise UnknownSchema(schema_id)

    values = [header(3)] * 1_000 + [header(4)] * 1_000
    assert len(Decoder(SCHEMA, COLUMNS, nothing).decode(values).bad) == 2_000
    assert len(asked) <= 3


def test_fastavro_takes_a_schema_of_ours_as_it_is_read_here() -> None:
    names = "sale_event payment_confirmation source_position enriched_sale late_event progress"
    for name in names.split():
        fastavro.parse_schema(parse(1, json.dumps(load(name))))
