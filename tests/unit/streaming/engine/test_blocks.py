"""Avro values ↔ columns: a value's fate depends on itself only, and money keeps its sign."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.registry import header
from kafka_client.writer_schemas import UnknownSchema
from streaming.engine.aggregates import money
from streaming.engine.blocks import Records, encode_rows, read_zigzag, zigzag
from streaming.engine.decoding import Decoder
from streaming.testing import MemoryRegistry
from tests.support.foreign_values import COLUMNS, SCHEMA, decoded, event

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def values(registry: MemoryRegistry) -> list[bytes]:
    codec = registry.codec("sale-events", SCHEMA)
    return [codec.encode(event(seq)) for seq in range(10)]


SOUND = MemoryRegistry().codec("sale-events", SCHEMA).encode(event(1))


def decoder(registry: MemoryRegistry) -> Decoder:
    return Decoder(SCHEMA, COLUMNS, registry.schema)


def test_sound_values_become_columns_in_their_order(registry: MemoryRegistry, values: list[bytes]) -> None:
    found = decoded(decoder(registry), values)
    assert found.bad == []
    assert found.frame["seq"].to_list() == list(range(10))
    assert found.frame["city"].to_list() == ["Köln"] * 10
    assert found.frame["amount"].to_list() == [Decimal("12.5000")] * 10
    assert found.frame["sold_at"].to_list() == [int(NOON.timestamp()) * 1_000_000] * 10


@pytest.mark.parametrize("place", [0, 4, 9])
@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (None, "no registry header"),
        (b"", "no registry header"),
        (b"{}", "no registry header"),
        (header(99) + b"x", "schema id 99 is unknown to the registry"),
        (header(1), "does not decode as SaleEvent, schema id 1"),
        (header(1) + b"\xff" * 40, "does not decode as SaleEvent, schema id 1"),
        (SOUND + b"\x00", "does not decode as SaleEvent, schema id 1"),
        (SOUND + SOUND, "does not decode as SaleEvent, schema id 1"),
        (SOUND + SOUND[5:], "does not decode as SaleEvent, schema id 1"),
    ],
    ids=[
        "tombstone", "empty", "json", "unknown schema", "no record", "wild lengths",
        "a byte behind it", "another value behind it", "another body behind it",
    ],
)  # fmt: skip
def test_a_bad_value_is_named_wherever_it_stands_and_nothing_else_is_lost(
    registry: MemoryRegistry, values: list[bytes], place: int, poison: bytes | None, reason: str
) -> None:
    mixed: list[bytes | None] = [*values]
    mixed[place] = poison
    found = decoded(decoder(registry), mixed)
    assert found.bad == [(place, reason)]
    assert found.frame["row"].to_list() == [row for row in range(10) if row != place]
    assert found.frame["seq"].to_list() == found.frame["row"].to_list()


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_damage_to_one_value_never_touches_another(data: st.DataObject) -> None:
    registry = MemoryRegistry()
    codec = registry.codec("sale-events", SCHEMA)
    sound = [codec.encode(event(seq)) for seq in range(6)]
    place = data.draw(st.integers(0, 5))
    at = data.draw(st.integers(0, len(sound[place]) - 1))
    damage = data.draw(st.binary(max_size=6))
    cut = data.draw(st.integers(0, 8))
    mixed: list[bytes | None] = [*sound]
    mixed[place] = sound[place][:at] + damage + sound[place][at + cut :]
    found = decoded(decoder(registry), mixed)
    others = found.frame.filter(pl.col("row") != place)
    assert others["seq"].to_list() == [row for row in range(6) if row != place]
    later = decoder(registry)
    assert later.decode(sound).bad == []
    assert bool(later.decode([mixed[place]]).bad) == (place in dict(found.bad))


def test_several_writer_schemas_in_one_poll(registry: MemoryRegistry, values: list[bytes]) -> None:
    newer = SCHEMA | {"fields": [*SCHEMA["fields"], {"name": "channel", "type": "string", "default": "shop"}]}
    codec = registry.codec("sale-events", newer)
    mixed = [*values[:3], codec.encode(event(3) | {"channel": "web"}), *values[4:]]
    found = decoded(decoder(registry), mixed)
    assert found.bad == []
    assert found.frame["seq"].to_list() == list(range(10))


def test_a_field_the_writer_lacks_has_its_default_or_is_a_reason(registry: MemoryRegistry) -> None:
    older = SCHEMA | {"fields": [field for field in SCHEMA["fields"] if field["name"] != "city"]}
    value = registry.codec("older", older).encode(event(1))
    reason = "field city is missing in the writer's schema SaleEvent, schema id 1"
    assert decoded(decoder(registry), [value]).bad == [(0, reason)]
    with_default = SCHEMA | {
        "fields": [f | {"default": "unknown"} if f["name"] == "city" else f for f in SCHEMA["fields"]]
    }
    found = decoded(Decoder(with_default, COLUMNS, registry.schema), [value])
    assert found.frame["city"].to_list() == ["unknown"]


def test_an_unknown_schema_id_is_asked_for_again(registry: MemoryRegistry) -> None:
    asked: list[int] = []

    def lookup(schema_id: int) -> Any:
        asked.append(schema_id)
        if len(asked) <= 2:
            raise UnknownSchema(schema_id)
        return registry.schema(schema_id)

    # Of another shape than ours, or it would be a registry that lost its schemas.
    newer = SCHEMA | {"fields": [*SCHEMA["fields"], {"name": "channel", "type": "string"}]}
    values = [registry.codec("newer", newer).encode(event(1) | {"channel": "web"})] * 5
    late = Decoder(SCHEMA, COLUMNS, lookup)
    assert len(late.decode(values).bad) == len(values)
    assert len(asked) == 2, "asked for each value"
    assert late.decode(values).bad == []


def test_null_in_a_nullable_writer_field_is_bad(registry: MemoryRegistry) -> None:
    nullable = SCHEMA | {
        "fields": [f | {"type": ["null", "string"]} if f["name"] == "city" else f for f in SCHEMA["fields"]]
    }
    codec = registry.codec("nullable", nullable)
    found = decoded(decoder(registry), [codec.encode(event(0)), codec.encode(event(1) | {"city": None})])
    assert [row for row, _ in found.bad] == [1]
    assert found.frame["seq"].to_list() == [0]


@given(st.lists(st.one_of(st.none(), st.integers(-(10**37), 10**37)), min_size=1))
@settings(deadline=None)
def test_decimals_are_written_as_avro_has_them(numbers: list[int | None]) -> None:
    decimals = [None if n is None else Decimal(n).scaleb(-4) for n in numbers]
    frame = pl.DataFrame({"amount": decimals}, schema={"amount": pl.Decimal(38, 4)})
    schema = {
        "type": "record",
        "name": "r",
        "fields": [{"name": "amount", "type": ["null", money("amount").avro]}],
    }
    rows = encode_rows(frame)
    parsed = fastavro.parse_schema(schema)
    assert [fastavro.schemaless_reader(io.BytesIO(row), parsed, None)["amount"] for row in rows] == decimals  # type: ignore[call-overload, index]
    assert Records(schema).read(len(rows), b"".join(rows))["amount"].to_list() == decimals


@given(st.integers(-(2**63), 2**63 - 1))
def test_longs_come_back(number: int) -> None:
    assert read_zigzag(zigzag(number), 0) == (number, len(zigzag(number)))
