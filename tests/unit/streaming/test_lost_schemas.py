"""Row 23: a registry that lost its schemas is an outage; a value of somebody who has another registry is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from contracts.registry import Codec, header
from contracts.schemas import load
from contracts.writers import LostSchema, Undecodable, UnknownSchema
from streaming.engine.blocks import zigzag
from streaming.engine.decoding import Decoder
from streaming.lost_schemas import _meaning
from tests.unit.streaming.test_blocks import COLUMNS, SCHEMA, event
from tests.unit.streaming.test_foreign_values import OWN, Registered, own_values

LOST = 11
TEXT = json.dumps(SCHEMA)
OTHERS = {
    "another record of ours": json.dumps(load("payment_confirmation")),
    "a string": '"string"',
    "an enum": '{"type": "enum", "name": "E", "symbols": ["A"]}',
}


def lost_values(count: int) -> list[bytes]:
    return [header(LOST) + value[5:] for value in own_values(count)]


def decoder(known: Registered) -> Decoder:
    return Decoder(SCHEMA, COLUMNS, known.schema)


def test_row_23_the_first_poll_after_the_loss_makes_no_dead_letters() -> None:
    for count in (1, 2, 500):
        with pytest.raises(LostSchema, match="schema id 11 to SaleEvent"):
            decoder(Registered()).decode(lost_values(count))


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_row_23_an_id_that_now_means_another_schema_is_the_same(other: str) -> None:
    known = Registered({LOST: (other, "AVRO"), OWN: (TEXT, "AVRO")})
    with pytest.raises(LostSchema):
        decoder(known).decode([*lost_values(20), header(3) + b"garbage"])


def test_row_23_one_value_of_another_registry_is_a_dead_letter() -> None:
    known = decoder(Registered({OWN: (TEXT, "AVRO")}))
    mixed = [*own_values(3), *lost_values(1), *own_values(3)]
    assert known.decode(mixed).bad == [(3, "schema id 11 is unknown to the registry")]
    for _ in range(5):
        # Alone in its poll, as everything is that comes slowly; ours come between.
        assert [row for row, _ in known.decode(lost_values(1)).bad] == [0]
        assert known.decode(own_values(1)).bad == []


def test_row_23_lost_values_that_come_slowly_are_a_loss_too() -> None:
    known = decoder(Registered({OWN: (TEXT, "AVRO")}))
    assert known.decode(own_values(1)).bad == []
    for _ in range(2):
        assert len(known.decode(lost_values(1)).bad) == 1
    with pytest.raises(LostSchema):
        known.decode(lost_values(1))


@pytest.mark.parametrize("body", [b"", b"hello", zigzag(5) + b"hello", b"\x00" * 8, b"\xff" * 90], ids=repr)
def test_row_23_what_does_not_read_as_ours_is_never_a_loss(body: bytes) -> None:
    assert len(decoder(Registered()).decode([header(LOST) + body] * 50).bad) == 50


def test_row_23_values_that_are_what_stands_under_their_id_are_somebody_elses() -> None:
    """The same bytes, but milliseconds."""
    millis = TEXT.replace("timestamp-micros", "timestamp-millis")
    codec = Codec(Registered(), LOST, json.loads(millis))
    found = decoder(Registered({LOST: (millis, "AVRO")})).decode([codec.encode(event(1))] * 50)
    assert len(found.bad) == 50
    assert "timestamp-millis" in found.bad[0][1]


def test_row_23_values_are_read_once_the_id_is_put_back() -> None:
    known = Registered()
    said: list[str] = []

    def wait(error: LostSchema, is_found: Callable[[], bool] | None) -> None:
        assert is_found is not None
        assert not is_found()
        said.append(str(error))
        known.texts[LOST] = (TEXT, "AVRO")
        assert is_found()

    mixed = [*lost_values(5), header(12) + b"foreign"]
    decoded = Decoder(SCHEMA, COLUMNS, known.schema, wait).decode(mixed)
    assert [row for row, _ in decoded.bad] == [5]
    assert decoded.frame["seq"].to_list() == list(range(5))
    assert len(said) == 1


@pytest.mark.parametrize("text", [None, *OTHERS.values()], ids=["unknown", *OTHERS])
@pytest.mark.parametrize("name", ["sale_event", "source_position", "dead_letter"])
def test_row_23_a_single_value_of_ours_is_never_taken_for_somebody_elses(name: str, text: str | None) -> None:
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


def test_an_unknown_id_says_so() -> None:
    assert str(UnknownSchema(3)) == "schema id 3 is unknown to the registry"


def test_row_23_a_registry_may_leave_out_a_namespace() -> None:
    def schema(more: dict[str, str]) -> dict[str, Any]:
        inner = {"type": "record", "name": "B", "fields": [{"name": "x", "type": "long"}]} | more
        return {"type": "record", "name": "A", "namespace": "n", "fields": [{"name": "b", "type": inner}]}

    assert _meaning(schema({"namespace": "n"})) == _meaning(schema({}))
    assert _meaning(schema({"namespace": "m"})) != _meaning(schema({}))
