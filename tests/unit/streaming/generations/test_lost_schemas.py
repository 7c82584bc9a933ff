"""Row 23: a registry that lost its schemas is an outage; a value of another registry is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from contracts.schemas import load
from contracts.settings import KafkaSettings
from kafka_client.registry import Codec, Reader, Registry, header
from kafka_client.writer_schemas import LostSchema, Undecodable
from streaming.engine.blocks import zigzag
from streaming.engine.decoding import Decoder
from streaming.generations.lost_schemas import _meaning
from tests.support.foreign_values import COLUMNS, OWN, SCHEMA, Registered, event, own_values

LOST = 11
TEXT = json.dumps(SCHEMA)
OTHERS = {
    "another record of ours": json.dumps(load("payment_confirmation")),
    "a string": '"string"',
    "an enum": '{"type": "enum", "name": "E", "symbols": ["A"]}',
}


def lost_values(count: int) -> list[bytes]:
    return [header(LOST) + value[5:] for value in own_values(count)]


def decoder(known: Registered, *own_ids: int) -> Decoder:
    return Decoder(SCHEMA, COLUMNS, known.schema, None, own_ids)


@pytest.mark.parametrize("count", [1, 2, 500])
def test_row_23_a_value_under_an_id_that_was_ours_makes_no_dead_letter(count: int) -> None:
    with pytest.raises(LostSchema, match="schema id 11 to SaleEvent"):
        decoder(Registered(), OWN, LOST).decode(lost_values(count))
    with pytest.raises(LostSchema):
        decoder(Registered({OWN: (TEXT, "AVRO")}), OWN, LOST).decode([*own_values(90), *lost_values(count)])


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("count", [1, 20])
def test_row_23_an_id_of_ours_that_now_means_another_schema_is_the_same(other: str, count: int) -> None:
    known = Registered({LOST: (other, "AVRO"), OWN: (TEXT, "AVRO")})
    with pytest.raises(LostSchema):
        decoder(known, LOST).decode([*lost_values(count), header(3) + b"garbage"])


@pytest.mark.parametrize("text", [None, *OTHERS.values()], ids=["unknown", *OTHERS])
@pytest.mark.parametrize("count", [1, 3, 49])
def test_row_23_values_of_another_registry_are_dead_letters(text: str | None, count: int) -> None:
    """Ours to the last byte, under an id that never was ours: first of all, again and again, and among ours."""
    known = Registered({OWN: (TEXT, "AVRO")} | ({LOST: (text, "AVRO")} if text else {}))
    made = decoder(known, OWN)
    for _ in range(5):
        assert [row for row, _ in made.decode(lost_values(count)).bad] == list(range(count))
    mixed = made.decode([*own_values(3), *lost_values(count), *own_values(3)])
    assert [row for row, _ in mixed.bad] == list(range(3, 3 + count))
    assert all("schema id 11" in reason for _, reason in mixed.bad)


def test_row_23_a_high_id_that_the_registry_never_gave_is_a_dead_letter() -> None:
    value = header(424242) + own_values(1)[0][5:]
    bad = [(0, "schema id 424242 is unknown to the registry")]
    assert decoder(Registered({OWN: (TEXT, "AVRO")}), OWN).decode([value]).bad == bad


@pytest.mark.parametrize("own_ids", [(), (OWN,)], ids=repr)
def test_row_23_most_of_a_poll_is_a_loss_though_no_ids_were_kept(own_ids: tuple[int, ...]) -> None:
    """The results database was lost as well."""
    known = Registered({OWN: (TEXT, "AVRO")})
    with pytest.raises(LostSchema):
        decoder(known, *own_ids).decode(lost_values(50))
    with pytest.raises(LostSchema):
        decoder(known, *own_ids).decode([*lost_values(60), *own_values(59)])
    assert len(decoder(known, *own_ids).decode([*lost_values(60), *own_values(60)]).bad) == 60
    assert len(decoder(known, *own_ids).decode([*lost_values(49), *own_values(1)]).bad) == 49


@pytest.mark.parametrize("body", [b"", b"hello", zigzag(5) + b"hello", b"\x00" * 8, b"\xff" * 90], ids=repr)
def test_row_23_what_does_not_read_as_ours_is_never_a_loss(body: bytes) -> None:
    assert len(decoder(Registered(), LOST).decode([header(LOST) + body] * 50).bad) == 50


def test_row_23_values_that_are_what_stands_under_their_id_are_foreign() -> None:
    """The same bytes, but milliseconds."""
    millis = TEXT.replace("timestamp-micros", "timestamp-millis")
    codec = Codec(Registered(), LOST, json.loads(millis))
    found = decoder(Registered({LOST: (millis, "AVRO")})).decode([codec.encode(event(1))] * 50)
    assert len(found.bad) == 50
    assert "timestamp-millis" in found.bad[0][1]


def test_row_23_values_are_read_once_the_id_is_put_back() -> None:
    known = Registered()
    waits: list[str] = []

    def wait(error: LostSchema, is_found: Callable[[], bool] | None) -> None:
        assert is_found is not None
        assert not is_found()
        waits.append(str(error))
        known.texts[LOST] = (TEXT, "AVRO")
        assert is_found()

    mixed = [*lost_values(5), header(12) + b"foreign"]
    decoded = Decoder(SCHEMA, COLUMNS, known.schema, wait, [LOST]).decode(mixed)
    assert [row for row, _ in decoded.bad] == [5]
    assert decoded.frame["seq"].to_list() == list(range(5))
    assert len(waits) == 1


@pytest.mark.parametrize("text", [None, *OTHERS.values()], ids=["unknown", *OTHERS])
@pytest.mark.parametrize("name", ["sale_event", "source_position", "dead_letter"])
def test_row_23_a_single_value_of_ours_is_never_taken_for_a_foreign_one(name: str, text: str | None) -> None:
    """A source would go on from an older position, or take a file's rows once more."""
    records: dict[str, Any] = {
        "sale_event": event(1),
        "source_position": (
            "electrored.SourcePosition",
            {"source": "csv", "next_seq": 9, "frontier": None, "detail": "{}"},
        ),
        "dead_letter": {"origin": "a", "partition": 3, "offset": 77, "reason": "bad", "value": b"x"},
    }
    schema = load(name)
    known = Registered({LOST: (text, "AVRO")} if text else {})
    codec = Codec(known, OWN, schema)
    value = codec.encode(records[name])
    with pytest.raises(LostSchema):
        codec.decode(header(LOST) + value[5:])
    with pytest.raises(Undecodable) as raised:
        codec.decode(header(LOST) + value[5:-1])
    assert not isinstance(raised.value, LostSchema)


def test_row_23_a_registry_may_leave_out_a_namespace() -> None:
    def schema(more: dict[str, str]) -> dict[str, Any]:
        inner = {"type": "record", "name": "B", "fields": [{"name": "x", "type": "long"}]} | more
        return {"type": "record", "name": "A", "namespace": "n", "fields": [{"name": "b", "type": inner}]}

    assert _meaning(schema({"namespace": "n"})) == _meaning(schema({}))
    assert _meaning(schema({"namespace": "m"})) != _meaning(schema({}))


def test_row_23_who_only_reads_registers_nothing() -> None:
    """Nor is any answer of the registry needed before the first value."""
    nowhere = KafkaSettings(kafka_bootstrap="kafka:9092", schema_registry_url="http://127.0.0.1:1")
    reader = Registry(nowhere).reader(SCHEMA)
    value = lost_values(1)[0]
    assert reader.own(value)["seq"] == 0
    with pytest.raises(Undecodable, match="no registry header"):
        reader.decode(b"")
    known = Reader(Registered({OWN: (TEXT, "AVRO")}), SCHEMA)
    assert known.decode(own_values(1)[0])["seq"] == 0
    with pytest.raises(LostSchema):
        known.decode(value)
