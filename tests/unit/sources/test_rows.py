"""Events made by hand are what a generic Avro reader reads, whatever the row holds."""

from __future__ import annotations

import io
import json
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import texts
from contracts.schemas import load
from kafka_client import avro
from kafka_client.registry import header
from sources.postgres.rows import COLUMNS, MAX_BYTES, SHOWN_BYTES, Dead, Encoder, as_json
from tests.support import pgoutput_messages as wire

SCHEMA = fastavro.parse_schema(load("sale_event"))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)
NAME = TEXT.filter(lambda text: texts.fault(texts.normal(text)) is None)
AMOUNT = st.decimals(min_value=Decimal(-(10**14)) + 1, max_value=Decimal(10**14) - 1, places=4)
# Without zones, as hypothesis wants its bounds.
MOMENT = st.datetimes(max_value=datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001


def read(value: bytes) -> dict[str, Any]:
    assert value[:5] == header(7)
    body = io.BytesIO(value[5:])
    record = fastavro.schemaless_reader(body, SCHEMA, None)
    assert body.read() == b""
    assert isinstance(record, dict)
    return record


def encode(
    values: list[bytes | None], reversal: bool = False, recorded_at: int | None = 10**15
) -> bytes | Dead:
    records: list[tuple[bytes, bytes]] = []
    seq, dead = Encoder(7, "postgres").encode([(reversal, values)], recorded_at, 41, records)
    assert seq == 41 + len(records)
    assert len(dead) + len(records) == 1
    return dead[0] if dead else records[0][1]


def encoded(values: list[bytes | None], reversal: bool = False, recorded_at: int | None = 10**15) -> bytes:
    value = encode(values, reversal, recorded_at)
    assert isinstance(value, bytes)
    return value


def dead(values: list[bytes | None], reversal: bool = False) -> Dead:
    row = encode(values, reversal)
    assert isinstance(row, Dead)
    return row


@given(
    *(NAME for _ in range(4)),
    *(TEXT for _ in range(2)),
    MOMENT,
    AMOUNT,
    st.integers(-(2**31), 2**31 - 1),
    st.booleans(),
    st.integers(1, 2**63 - 1),
)
def test_an_event_is_what_was_in_the_row(
    sale_id: str, city: str, country: str, salesman: str, name: str, product: str,
    sold_at: datetime, amount: Decimal, quantity: int, reversal: bool, seq: int,
) -> None:  # fmt: skip
    sent = [text.encode() for text in (sale_id, city, country, salesman, name, product)]
    numbers = struct.pack(">i", quantity), wire.numeric(amount)
    row = [sent[0], wire.timestamp(sold_at), *sent[1:], *numbers, b"EUR"]
    records: list[tuple[bytes, bytes]] = []
    assert Encoder(7, "postgres").encode([(reversal, row)], 5, seq, records) == (seq + 1, [])
    sign = -1 if reversal else 1
    ((key, value),) = records
    sale_id, city, country, salesman = (texts.normal(text) for text in (sale_id, city, country, salesman))
    name, product = texts.description(name), texts.description(product)
    assert key == sale_id.encode()
    assert read(value) == {
        "source": "postgres", "seq": seq, "sale_id": sale_id, "operation": "REVERSAL" if reversal else "SALE",
        "sold_at": sold_at, "recorded_at": datetime(1970, 1, 1, 0, 0, 0, 5, tzinfo=UTC), "city": city,
        "country": country, "salesman_id": salesman, "salesman_name": name, "product": product,
        "quantity": sign * quantity, "amount": sign * amount, "currency": "EUR",
    }  # fmt: skip


@given(st.integers(-(2**63), 2**63 - 1))
def test_long_is_avros(n: int) -> None:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", n)
    assert avro.long(n) == out.getvalue()


def test_a_snapshot_row_is_recorded_when_it_was_sold() -> None:
    event = encoded(wire.sale(), recorded_at=None)
    assert read(event)["recorded_at"] == read(event)["sold_at"]


@pytest.mark.parametrize(("sent", "shown"), [(b"EUR", "EUR"), (b"EU ", "EU"), (b"   ", "")])
def test_the_blanks_that_pad_a_currency_go(sent: bytes, shown: str) -> None:
    assert read(encoded(wire.sale(currency=sent)))["currency"] == shown


@pytest.mark.parametrize("reversal", [False, True])
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"amount": struct.pack(">HhHH", 0, 0, 0xC000, 0)}, "amount is NaN"),
        ({"amount": struct.pack(">HhHH", 0, 0, 0xD000, 0)}, "amount is Infinity"),
        ({"amount": wire.numeric(Decimal(10) ** 14)}, "amount has more than 14 digits before the point"),
        ({"amount": wire.numeric(Decimal(10) ** 4000)}, "amount has more than 14 digits before the point"),
        ({"amount": wire.numeric(Decimal("0.00001"), 5)}, "amount has more than 4 decimals"),
        ({"sold_at": struct.pack(">q", 2**63 - 1)}, "sold_at is outside of the years 1 to 9999"),
        ({"sold_at": struct.pack(">q", -(2**63))}, "sold_at is outside of the years 1 to 9999"),
        ({"city": None}, "city is null"),
        ({"currency": None, "quantity": None}, "quantity, currency is null"),
        ({"amount": None}, "amount is null"),
        ({"product": b"x" * MAX_BYTES}, f"the row is larger than {MAX_BYTES} bytes"),
    ],
)
def test_both_halves_of_what_no_event_can_hold_are_dead(
    changed: dict[str, Any], reason: str, reversal: bool
) -> None:
    assert dead(wire.sale(**changed), reversal).reason == reason


@pytest.mark.parametrize("reversal", [False, True])
def test_row_5_blanks_that_pad_a_column_mean_nothing(reversal: bool) -> None:
    """char(n) of every text, and the same by hand in a text column; a sale and its reversal are one group."""
    padded = {
        name: (wire.sale()[COLUMNS.index(name)] or b"") + b" " * 14
        for name in ("sale_id", "city", "country", "salesman_id", "salesman_name", "product", "currency")
    }
    row = [padded.get(name, value) for name, value in zip(COLUMNS, wire.sale(), strict=True)]
    assert encode(row, reversal) == encode(wire.sale(), reversal)


@pytest.mark.parametrize("reversal", [False, True])
@pytest.mark.parametrize("column", ["sale_id", "city", "country", "salesman_id"])
def test_row_15_both_halves_of_a_name_with_what_cannot_be_seen_are_dead(column: str, reversal: bool) -> None:
    row = wire.sale()
    row[COLUMNS.index(column)] = "Ber\u200blin".encode()
    assert dead(row, reversal).reason == f"{column} holds U+200B ZERO WIDTH SPACE at position 4"


def test_row_15_a_description_costs_no_sale() -> None:
    event = encoded(wire.sale(product="Fern\xadseher\r\n55 Zoll ".encode(), salesman_name=b"\xe2\x80\x8b"))
    assert (read(event)["product"], read(event)["salesman_name"]) == ("Fernseher 55 Zoll", "")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Berlin", "Köln", "Köln ", "Ko\u0308ln", "a|b", "Ber\tlin", "|", ""]),
            st.booleans(),
        )
    )
)
def test_rows_that_are_read_together_are_read_as_each_alone(found: list[tuple[str, bool]]) -> None:
    events = [(reversal, wire.sale(city=city.encode())) for city, reversal in found]
    records: list[tuple[bytes, bytes]] = []
    _, dead = Encoder(7, "postgres").encode(events, 5, 1, records)
    alone = [encode(values, reversal, recorded_at=5) for reversal, values in events]
    assert [read(value) | {"seq": 0} for _, value in records] == [
        read(one) | {"seq": 0} for one in alone if isinstance(one, bytes)
    ]
    assert [one.index for one in dead] == [n for n, one in enumerate(alone) if isinstance(one, Dead)]


def test_an_event_that_its_normal_form_makes_too_large_is_dead() -> None:
    """Some characters have a longer one; Kafka would refuse the event for ever."""
    row = wire.sale(product="\U0001d160".encode() * (MAX_BYTES // 5))
    assert dead(row)


def sized(column: str, length: int) -> list[bytes | None]:
    row = wire.sale()
    row[COLUMNS.index(column)] = b"x" * length
    return row


@pytest.mark.parametrize("column", ["sale_id", "product"])
def test_a_sale_and_its_reversal_are_judged_alike(column: str) -> None:
    """At the limit both are events that Kafka's clients send, beyond it neither is."""
    times = 2 if column == "sale_id" else 1
    bare = sized(column, 0)
    room = (MAX_BYTES - sum(len(value or b"") for value in [*bare, bare[0]])) // times
    for reversal in (False, True):
        value = encoded(sized(column, room), reversal)
        assert len(value) + (room if column == "sale_id" else 0) < MAX_BYTES + 100
        assert dead(sized(column, room + 1), reversal)


@pytest.mark.parametrize("text", ["x", "\x01", "😀"])
def test_a_large_dead_row_is_cut(text: str) -> None:
    large = (text * 400_000).encode()
    row = wire.sale(amount="9" * 5_000)
    numbers = ("sold_at", "quantity", "amount")
    shown = as_json([v if name in numbers else large for name, v in zip(COLUMNS, row, strict=True)])
    assert len(shown) <= SHOWN_BYTES
    assert json.loads(shown)["product"] == text * 150 + "… and 399850 characters more"


def test_a_dead_row_is_shown_as_it_is() -> None:
    row = wire.sale(amount="-1234.5600", sold_at=struct.pack(">q", 2**63 - 1), city=None)
    shown = json.loads(as_json(row))
    assert list(shown) == list(COLUMNS)
    expected = ("-1234.5600", "infinity", None, 2)
    assert (shown["amount"], shown["sold_at"], shown["city"], shown["quantity"]) == expected
    far = json.loads(as_json(wire.sale(sold_at=struct.pack(">q", 10**18), amount="0.0000")))
    assert (far["sold_at"], far["amount"]) == ("1000000000000000000 microseconds from 2000-01-01", "0.0000")
    near = json.loads(as_json(wire.sale(sold_at=wire.timestamp(datetime(2026, 1, 1, 1, tzinfo=UTC)))))
    assert near["sold_at"] == "2026-01-01T01:00:00+00:00"


@pytest.mark.parametrize(
    ("kind", "size", "value"),
    [("h", 2, 5), ("h", 2, -5), ("q", 8, 5), ("q", 8, 2**31 - 1), ("q", 8, -(2**31)), ("i", 4, -(2**31))],
)
@pytest.mark.parametrize("reversal", [False, True])
def test_row_6_a_quantity_of_every_integer_type_that_fits(
    kind: str, size: int, value: int, reversal: bool
) -> None:
    data = struct.pack(f">{kind}", value)
    assert len(data) == size
    assert read(encoded(wire.sale(quantity=data), reversal))["quantity"] == (-value if reversal else value)


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**63 - 1, -(2**63)])
def test_row_6_a_quantity_that_does_not_fit_is_dead_and_named_on_both_sides(value: int) -> None:
    values = wire.sale(quantity=struct.pack(">q", value))
    for reversal in (False, True):
        assert (
            dead(values, reversal).reason
            == f"quantity is {value}, which is out of the range of a 32-bit integer"
        )
    assert json.loads(as_json(values))["quantity"] == value


def test_row_26_a_row_is_held_to_what_the_topic_takes() -> None:
    records: list[tuple[bytes, bytes]] = []
    rows = [wire.sale(product=b"x" * size) for size in (100, 5_000)]
    _, (dead,) = Encoder(7, "postgres", 1_000).encode([(False, row) for row in rows], 5, 1, records)
    assert (dead.index, dead.reason) == (1, "the row is larger than 1000 bytes")
    assert len(records) == 1
