"""A confirmation's event is what the service sent; what no event can hold has a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.schemas import load
from kafka_client.registry import Codec
from sources.soap.confirmation import Confirmation, events, normal, refusal

AT = datetime(2026, 11, 2, 12, 0, 0, 1, tzinfo=UTC)
GOOD = Confirmation("p1", "s1", Decimal("12.5"), "EUR", "CONFIRMED", AT)


class NoRegistry:
    def schema(self, schema_id: int) -> Any:
        raise AssertionError(f"schema {schema_id} is not the writer's own")


CODEC = Codec(NoRegistry(), 77, load("payment_confirmation"))

confirmations = st.builds(
    Confirmation,
    payment_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    sale_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=1_100),
    amount=st.decimals(-(10**15), 10**15, places=4) | st.decimals(),
    currency=st.from_regex("[A-Za-z]{2,3}", fullmatch=True),
    status=st.sampled_from(["CONFIRMED", "REFUNDED", "PERHAPS"]),
    confirmed_at=st.datetimes(timezones=st.just(UTC)),
)


@given(st.lists(confirmations, max_size=5), st.datetimes(timezones=st.just(UTC)), st.integers(1, 2**62))
def test_a_generic_reader_reads_what_was_confirmed(
    found: list[Confirmation], recorded_at: datetime, seq: int
) -> None:
    valid = [one for one in map(normal, found) if refusal(one) is None]
    records = events(CODEC, valid, recorded_at, seq)
    assert [key.decode() for key, _ in records] == [one.sale_id for one in valid]
    assert [CODEC.decode(value) for _, value in records] == [
        {"source": "soap", "seq": seq + number, "recorded_at": recorded_at, **vars(one)}
        for number, one in enumerate(valid)
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"payment_id": ""}, "payment_id is empty"),
        ({"payment_id": "ß" * 129}, "payment_id is longer than 256 bytes"),
        ({"sale_id": "a\0b"}, "sale_id holds U+0000 NULL at position 2"),
        ({"sale_id": "s\u200b1"}, "sale_id holds U+200B ZERO WIDTH SPACE at position 2"),
        ({"payment_id": "p\xad"}, "payment_id holds U+00AD SOFT HYPHEN at position 2"),
        ({"payment_id": " \xa0"}, "payment_id is empty"),
        ({"sale_id": "s" * 1_001}, "sale_id is longer than 1000 bytes"),
        ({"currency": "EURO"}, "currency is not three capital letters"),
        ({"currency": "ÄÖÜ"}, "currency is not three capital letters"),
        ({"currency": "eur"}, "currency is not three capital letters"),
        ({"status": "PENDING"}, "status is neither CONFIRMED nor REFUNDED"),
        ({"amount": Decimal(10**14)}, "amount has more than 14 digits before the point"),
        ({"amount": Decimal("NaN")}, "amount has more than 14 digits before the point"),
        ({"amount": Decimal("0.00001")}, "amount has more than 4 decimals"),
        ({"amount": Decimal("12345678901234." + "0" * 30 + "1")}, "amount has more than 4 decimals"),
        ({"amount": Decimal("1E-5000")}, "amount has more than 4 decimals"),
        ({"confirmed_at": AT.replace(tzinfo=None)}, "confirmed_at is without a time zone"),
        ({"confirmed_at": AT.replace(year=2200)}, "confirmed_at is not between 1900-01-01 and 2200-01-01"),
    ],
)
def test_what_no_event_can_hold_has_a_reason(change: dict[str, Any], reason: str) -> None:
    assert refusal(normal(replace(GOOD, **change))) == reason


def test_the_greatest_amounts_are_exact() -> None:
    for amount in (
        Decimal("99999999999999.9999"),
        Decimal("-99999999999999.9999"),
        Decimal("0.0001"),
        Decimal("0." + "5" + "0" * 40),
    ):
        one = replace(GOOD, amount=amount)
        assert refusal(one) is None
        ((_, value),) = events(CODEC, [one], AT, 1)
        assert CODEC.decode(value)["amount"] == amount


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    one = replace(GOOD, confirmed_at=AT.astimezone(timezone(timedelta(hours=14))))
    ((_, value),) = events(CODEC, [one], AT, 1)
    assert CODEC.decode(value)["confirmed_at"] == AT


def test_row_15_a_payment_names_its_sale_as_the_sale_is_named() -> None:
    one = normal(replace(GOOD, payment_id=" p1\t", sale_id="So\u0308 1\xa0"))
    assert (one.payment_id, one.sale_id) == ("p1", "Sö 1")
    assert refusal(one) is None
