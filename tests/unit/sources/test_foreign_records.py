"""Rows 22 and 23: what others wrote where a source reads itself back is passed over, or ends it with a way on."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import SALES_EVENTS, SOURCE_POSITIONS
from kafka_client.errors import Refused
from kafka_client.registry import Codec, header
from observability import logs
from sources.csv.own_events import Log
from sources.log import MOST_SEQ, OwnEvents, _seqs
from sources.position_store import PositionStore, SourceOffset
from tests.support.events import confirmation
from tests.support.foreign_values import Registered, event

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = KafkaSettings(kafka_bootstrap="kafka:9092", schema_registry_url="http://registry:8081")
CODEC = Codec(Registered({7: ('"string"', "AVRO")}), 1, load("source_position"))
FOREIGN = [b"", b"{}", header(7) + b"\x0ahello", header(99) + b"x" * 20, header(1), header(1) + b"\xff" * 30]


def position(next_seq: int) -> bytes:
    record = {"source": "csv", "next_seq": next_seq, "frontier": NOON, "detail": '{"a": 1}'}
    return CODEC.encode(("electrored.SourcePosition", record))


def read_back(monkeypatch: pytest.MonkeyPatch, *records: tuple[bytes, bytes | None]) -> PositionStore:
    store = PositionStore(SETTINGS, "csv", "sources.csv", SOURCE_POSITIONS, SALES_EVENTS)
    monkeypatch.setattr("sources.position_store.ends", lambda *_: {0: len(records)})
    monkeypatch.setattr(store, "_committed_below", lambda _: records)
    store._read_back(CODEC)
    return store


@pytest.mark.parametrize("foreign", FOREIGN, ids=repr)
def test_row_22_a_foreign_value_under_a_sources_key_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, foreign: bytes
) -> None:
    records = (b"csv", position(5)), (b"postgres", foreign), (b"csv", foreign), (b"\xff", foreign)
    assert read_back(monkeypatch, *records).position == SourceOffset(5, NOON, {"a": 1})


@pytest.mark.parametrize("key", [b"csv", b"csv/range/1", b"csv/file/abc"])
@pytest.mark.parametrize("foreign", FOREIGN, ids=repr)
def test_row_22_once_the_sources_own_record_is_gone_it_ends_with_a_way_on(
    monkeypatch: pytest.MonkeyPatch, foreign: bytes, key: bytes
) -> None:
    sentence = f"source-positions holds a foreign record under the key {key.decode()} .*contracts acls"
    with pytest.raises(Refused, match=sentence):
        read_back(monkeypatch, (key, foreign))


def test_row_22_what_the_source_wrote_afterwards_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    store = read_back(monkeypatch, (b"csv", b"foreign"), (b"csv", position(6)))
    assert store.position == SourceOffset(6, NOON, {"a": 1})


def test_row_23_a_position_whose_id_was_lost_is_no_reason_to_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = header(99) + position(6)[5:]
    with pytest.raises(Refused, match="schema id 99 to a record of ours"):
        read_back(monkeypatch, (b"csv", position(5)), (b"csv", lost))


@pytest.fixture
def log() -> Log:
    """As it decodes: without servers."""
    log = Log.__new__(Log)
    log._own = OwnEvents(Codec(Registered({7: ('"string"', "AVRO")}), 1, load("sale_event")), "csv")
    return log


def sale(**changes: Any) -> bytes:
    return Codec(Registered(), 1, load("sale_event")).encode(event(1) | {"source": "csv"} | changes)


@pytest.mark.parametrize("foreign", [*FOREIGN, None], ids=repr)
def test_row_22_a_foreign_value_in_the_log_is_nothing_of_the_files(log: Log, foreign: bytes | None) -> None:
    assert log._event(foreign) is None


def test_row_22_own_events_are_read(log: Log) -> None:
    found = log._event(sale(amount=Decimal("12.5000")))
    assert found is not None
    assert (found["seq"], found["amount"]) == (1, 125_000)
    assert log._event(sale(source="postgres")) is None


def test_row_23_an_own_event_whose_id_was_lost_is_not_overlooked(log: Log) -> None:
    """Its row would be taken once more."""
    with pytest.raises(Refused, match="schema id 99 to SaleEvent"):
        log._event(header(99) + sale()[5:])


def test_row_23_a_lost_value_of_another_source_is_nothing_of_the_files(log: Log) -> None:
    assert log._event(header(99) + sale(source="postgres")[5:]) is None
    assert log._event(header(7) + sale(source="postgres")[5:]) is None


PAYMENTS = Codec(Registered({7: ('"string"', "AVRO")}), 1, load("payment_confirmation"))


def payment(schema_id: int = 1, **changes: Any) -> bytes:
    return header(schema_id) + PAYMENTS.encode(confirmation(5) | changes)[5:]


@pytest.mark.parametrize("schema_id", [99, 7, 424242])
def test_row_21_a_payment_under_an_id_that_leads_elsewhere_refuses_no_poll(schema_id: int) -> None:
    """Ours or not: a seq above all that are in the log is always right."""
    values = [payment(seq=4), payment(schema_id, seq=9), payment(schema_id, seq=12, source="other"), *FOREIGN]
    assert list(_seqs(PAYMENTS, "soap", values)) == [4, 9]


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("schema_id", [1, 99])
def test_row_21_a_seq_that_no_source_reaches_is_passed_over_with_one_line(
    capfd: pytest.CaptureFixture[str], schema_id: int
) -> None:
    logs.configure("test")
    foreign = [payment(schema_id, seq=2**63 - 1), payment(schema_id, seq=MOST_SEQ + 1)]
    assert list(_seqs(PAYMENTS, "soap", [payment(seq=4), *foreign, payment(seq=5)])) == [4, 5]
    assert list(_seqs(PAYMENTS, "soap", [payment(seq=MOST_SEQ)])) == [MOST_SEQ]
    logged = capfd.readouterr()
    assert (logged.out + logged.err).count("its seq is above any that a source assigns") == 1
