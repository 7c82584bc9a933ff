"""A source's transactions are counted from the first one on, and its seqs are read from the log without decoding."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import SALES_EVENTS, SOURCE_POSITIONS
from kafka_client import avro
from kafka_client.registry import Codec
from sources.log import _seqs
from sources.position_store import PositionStore
from tests.support.events import confirmation

AT = datetime(2026, 11, 2, 12, tzinfo=UTC)


def test_every_outcome_is_0_before_there_was_a_transaction() -> None:
    settings = KafkaSettings(kafka_bootstrap="127.0.0.1:1", schema_registry_url="http://127.0.0.1:1")
    PositionStore(settings, "till", "sources.till", SOURCE_POSITIONS, SALES_EVENTS)
    for outcome in ("committed", "fenced", "refused", "unknown"):
        labels = {"flow": "till", "outcome": outcome}
        assert REGISTRY.get_sample_value("electrored_transactions_total", labels) == 0.0


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=4))
def test_a_long_is_read_where_it_begins(number: int, before: bytes) -> None:
    value = before + avro.long(number) + b"\xff"
    assert avro.read_long(value, len(before)) == number
    assert avro.read_long(value[: len(before)], len(before)) == 0


class _Schemas:
    """One older writer schema; every other id is of something else."""

    def schema(self, schema_id: int) -> object:
        return load("payment_confirmation") if schema_id == 3 else "string"


def test_row_21_seqs_are_those_of_the_sources_own_events_though_others_write_too() -> None:
    now, older, foreign = (Codec(_Schemas(), n, load("payment_confirmation")) for n in (7, 3, 9))
    event = confirmation(amount=Decimal("1.0000"), confirmed_at=AT, recorded_at=AT)

    def value(codec: Codec, source: str, seq: int) -> bytes:
        return codec.encode(event | {"source": source, "seq": seq})

    values = [
        value(now, "soap", 70_000),
        value(older, "soap", 5),
        value(now, "soapy", 90_000),
        value(older, "csv", 90_000),
        # The registry has another schema under this id now; a seq that is too high is safe, one too low is not.
        value(foreign, "soap", 80_000),
        value(now, "soap", 1)[:9],
        b"no event",
        b"",
        None,
    ]
    assert list(_seqs(now, "soap", values)) == [70_000, 5, 80_000]
