"""Rows and columns are one pipeline: the same partials, totals, dead letters and counts, to the byte (I7)."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any
from unittest import mock

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.registry import header
from streaming.engine.blocks import Records
from streaming.engine.expressions import IsKnown
from streaming.engine.pipeline import Pipeline
from streaming.pipelines import PIPELINES
from tests.support.interpreters import (
    COLUMNS,
    MICROS,
    ROWS,
    Cycle,
    Value,
    Values,
    driver_over,
    most_rows,
    outcomes,
    payment,
    plain,
    sale,
)

EVERY_VERSION = pytest.mark.parametrize("version", PIPELINES, ids=str)
DAY = 86_400_000_000
# The first and last microseconds of a datetime, and those beside them.
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
LONGS = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**53]) | st.integers(-(2**63), 2**63 - 1)
TIMES = st.sampled_from(
    [FIRST, FIRST - 1, LAST, LAST + 1, MICROS, MICROS + DAY, MICROS + 60 * DAY, -2_208_988_800_000_000]
) | st.integers(MICROS - 40 * DAY, MICROS + 40 * DAY)
TEXTS = st.sampled_from(
    [
        "", "\0", "A\0B", "EUR\n", "eur", "a|b", "a\\|b", "Köln", "Ko\u0308ln ", "\u3164", "A\tda", "x" * 201,
        "ß" * 129, "x" * 1_001, "\U0001f600" * 250, "Ber\u200blin", " DE", "\xa0", b"\xff", b"\xed\xa0\x80", b"ok\xc3",
    ]
) | st.text(max_size=3)  # fmt: skip
AMOUNTS = st.sampled_from(
    [0, 10**18 - 1, -(10**18) + 1, 10**18, 2**127 - 1, 2**127, -(2**127)]
) | st.integers(-(10**18), 10**18)
OF_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "source": st.sampled_from(["postgres", "csv", "soap"]) | TEXTS,
    "seq": LONGS, "quantity": LONGS, "amount": AMOUNTS,
    "sold_at": TIMES, "confirmed_at": TIMES, "recorded_at": TIMES,
    "operation": st.sampled_from(["SALE", "REVERSAL", "REVERSAL", "sale"]),
    "status": st.sampled_from(["CONFIRMED", "REFUNDED", "OPEN"]),
    "till": st.none() | st.text(max_size=2),
}  # fmt: skip


@st.composite
def values_of(draw: st.DrawFn, values: Values, number: int) -> list[Value]:
    """Values of an input: mostly sound, some of them again, damaged, or of another writer."""
    log: list[Value] = []
    for seq in range(draw(st.integers(0, 14))):
        usual = sale(seq) if number == 0 else payment(seq)
        usual["sale_id"] = f"sale-{draw(st.integers(0, 3))}"
        if number == 1:
            usual["payment_id"] = f"p{draw(st.integers(0, 2))}"
        changed = draw(st.sets(st.sampled_from(sorted(usual)), max_size=2))
        event = usual | {name: draw(OF_FIELDS.get(name, TEXTS)) for name in sorted(changed)}
        value = values.encode(event, number, newer=draw(st.booleans()))
        kind = draw(st.sampled_from(["sound"] * 12 + ["again", "damaged", "cut", "longer", "other", "none"]))
        at = draw(st.integers(0, len(value) - 1))
        given: bytes | None = {
            "damaged": value[:at] + draw(st.binary(max_size=2)) + value[at + 1 :],
            "cut": value[:at],
            "longer": value + b"\0",
            "other": b"\0\0\0\0\x63" + value[5:],
            "none": None,
        }.get(kind, value)
        log.append((draw(st.integers(0, 1)), given))
        if kind == "again":
            log.append(draw(st.sampled_from(log)))
    return log


CYCLES = st.lists(
    st.builds(
        Cycle,
        st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple),
        st.sampled_from([COLUMNS, 2, 4, ROWS]),
        st.sampled_from([True, True, True, False]),
    ),
    min_size=1,
    max_size=4,
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia"])


@EVERY_VERSION
@settings(max_examples=40)
@given(data=st.data(), cycles=CYCLES, zone=ZONES)
def test_i7_whatever_events_and_cycles_both_give_the_same(
    version: tuple[str, int], data: st.DataObject, cycles: list[Cycle], zone: str
) -> None:
    pipeline = PIPELINES[version]
    values = Values(driver_over(pipeline))
    logs = [data.draw(values_of(values, number)) for number in range(len(pipeline.inputs))]
    expected = run(pipeline, logs, [Cycle(one.polls, COLUMNS, one.commit) for one in cycles], zone)
    assert run(pipeline, logs, [Cycle(one.polls, ROWS, one.commit) for one in cycles], zone) == expected
    assert run(pipeline, logs, cycles, zone) == expected


def run(
    pipeline: Pipeline, logs: list[list[Value]], cycles: list[Cycle], zone: str = "Europe/Berlin"
) -> list[dict[str, Any]]:
    driver = driver_over(pipeline, zone)
    # So that the schema ids are those of the values.
    Values(driver)
    found = outcomes(driver, logs, cycles)
    return [*found, {"state": sorted(last_values(driver).items())}]


def last_values(driver: Any) -> dict[bytes, bytes]:
    return {record.key(): record.value() for records in driver.state.records for record in records}


def agree(
    version: tuple[str, int], *events: dict[str, Any] | bytes | None, number: int = 0
) -> dict[str, Any]:
    """Both give the same for these events of one input, together and one by one; the outcome of them together."""
    pipeline = PIPELINES[version]
    values = Values(driver_over(pipeline))
    log: list[Value] = [
        (0, values.encode(event, number) if isinstance(event, dict) else event) for event in events
    ]
    logs: list[list[Value]] = [[] for _ in pipeline.inputs]
    logs[number] = log
    for polls in [(len(log),)], [(1,)] * len(log), [(1,) * len(log)]:
        rows, columns = (
            run(pipeline, logs, [Cycle(poll, kind) for poll in polls]) for kind in (ROWS, COLUMNS)
        )
        assert rows == columns
        state = rows[-1]["state"]
    driver = driver_over(pipeline)
    Values(driver)
    outcomes(driver, logs, [Cycle((len(log),), ROWS)])
    assert last_values(driver) == dict(state), "the batching changes it"
    return {
        "totals": driver.totals(),
        "reasons": [letter["reason"] for letter in driver.dead_letters()],
        "progress": driver.progress(0, number=number),
    }


CITY, SALESMAN, JOIN = ("top-sales-by-city", 2), ("top-salesman-by-country", 2), ("enriched-sales", 2)


@EVERY_VERSION
def test_h4_a_line_feed_behind_a_currency_is_refused(version: tuple[str, int]) -> None:
    found = agree(version, sale(1, currency="EUR\n"), sale(2, currency="EUR"), sale(3, currency="\nEUR"))
    assert found["reasons"] == ["currency is not three capital letters"] * 2


def test_h3_invalid_utf_8_is_a_dead_letter_only_of_a_pipeline_that_reads_the_column() -> None:
    events = [sale(1, product=b"\xff"), sale(2, city=b"Ber\xc3"), sale(3, city=b"\xed\xa0\x80")]
    assert len(agree(CITY, *events)["reasons"]) == 2
    assert len(agree(SALESMAN, *events)["reasons"]) == 2
    assert len(agree(JOIN, *events)["reasons"]) == 3


def test_h4_amounts_are_exact_up_to_the_limit_of_their_type_and_sums_beyond_28_digits() -> None:
    most = 10**18 - 1
    found = agree(CITY, *(sale(seq, amount=most if seq % 3 else -most) for seq in range(50)))
    (total,) = found["totals"].values()
    assert int(total["total"].scaleb(4)) == most * 16
    assert agree(CITY, sale(1, amount=most + 1))["reasons"] == [
        "does not decode as SaleEvent, schema id 1: a needed field is null or out of its range"
    ]


@pytest.mark.parametrize("recorded_at", [FIRST, FIRST - 1, LAST, LAST + 1, 2**63 - 1, -(2**63)])
def test_h4_a_time_that_no_datetime_holds_has_one_fate(recorded_at: int) -> None:
    found = agree(CITY, sale(1, recorded_at=recorded_at), sale(2))
    assert len(found["reasons"]) == (0 if FIRST <= recorded_at <= LAST else 1)
    assert found["progress"].late == (recorded_at == LAST)
    assert found["progress"].future == (recorded_at == FIRST)


@EVERY_VERSION
def test_h4_duplicates_count_once_within_a_poll_and_across(version: tuple[str, int]) -> None:
    events = [sale(1), sale(1), sale(3), sale(2), sale(3), sale(4, source="csv"), sale(4)]
    assert agree(version, *events)["progress"].duplicates == 3


def test_a_seq_at_either_end_of_64_bits_is_compared_and_not_subtracted() -> None:
    found = agree(CITY, sale(2**63 - 1), sale(-(2**63)), sale(0))
    assert found["progress"].duplicates == 2


def test_what_lies_behind_a_value_or_is_missing_from_it_is_refused() -> None:
    sound = Values(driver_over(PIPELINES[CITY])).encode(sale(1))
    found = agree(CITY, sound + b"\0", sound[:-1], b"", None, sound + sound, sale(2))
    assert len(found["reasons"]) == 5
    assert found["progress"].events == 6


def test_several_writers_in_one_poll_are_read_alike() -> None:
    values = Values(driver_over(PIPELINES[CITY]))
    newer = [values.encode(sale(seq, till="t" if seq % 4 else None), newer=True) for seq in (2, 4)]
    (total,) = agree(CITY, sale(1), newer[0], sale(3), newer[1])["totals"].values()
    assert total["sales_count"] == 4


@EVERY_VERSION
def test_a_group_that_came_to_nothing_stays_with_a_count_of_zero(version: tuple[str, int]) -> None:
    changes = {"sale_id": "a", "operation": "REVERSAL", "quantity": -1, "amount": -100_000}
    (total,) = agree(version, sale(1, sale_id="a"), sale(2, **changes))["totals"].values()
    assert (total["sales"][0][1] if "sales" in total else total)["sales_count"] == 0


def test_of_two_events_that_are_equally_great_the_greater_name_is_shown() -> None:
    """Two sources with the same id, time and seq; in either order, or the answer would depend on arrival."""
    names = ["Ada\0", "Ada\ufffd", "Bo" + "x" * 300, "Bo" + "x" * 299, "b"]
    events = [sale(1, source=f"s{n}", salesman_name=name) for n, name in enumerate(names)]
    for version in (SALESMAN, (SALESMAN[0], 1)):
        shown = [agree(version, *order)["totals"] for order in (events, events[::-1])]
        assert shown[0] == shown[1]
        assert {total["salesman_name"] for total in shown[0].values()} == {"b"}
    # The cut names are equal, so which of them it is makes no difference.
    assert agree(SALESMAN, *events[2:4])["totals"] == agree(SALESMAN, *events[3:1:-1])["totals"]


def test_of_two_equal_confirmations_of_a_payment_one_is_taken_in_either_order() -> None:
    events = [payment(1, payment_id="p", status=status) for status in ("CONFIRMED", "REFUNDED")]
    events[1] |= {"source": "soap"}
    for order in (events, events[::-1]):
        values = Values(driver_over(PIPELINES[JOIN]))
        logs: list[list[Value]] = [[], [(n, values.encode(event, 1)) for n, event in enumerate(order)]]
        found = [run(PIPELINES[JOIN], logs, [Cycle((2,), kind)])[-1] for kind in (ROWS, COLUMNS)]
        assert found[0] == found[1]
        assert b"REFUNDED" in b"".join(value for _, value in found[0]["state"])


def test_quantities_wrap_at_64_bits_in_both() -> None:
    events = [sale(seq, sale_id="a", quantity=2**63 - 1) for seq in (1, 2)]
    (total,) = agree(JOIN, *events)["totals"].values()
    assert total["sales"][0][1]["quantity"] == -2


@pytest.mark.parametrize("first", ["sale", "payment"])
def test_what_one_input_contributes_is_null_until_the_other_comes(first: str) -> None:
    values = Values(driver_over(PIPELINES[JOIN]))
    logs: list[list[Value]] = [
        [(0, values.encode(sale(1, sale_id="a")))],
        [(0, values.encode(payment(1, sale_id="a"), 1))],
    ]
    if first == "payment":
        logs[0] = []
    found = [run(PIPELINES[JOIN], logs, [Cycle((1,), kind)]) for kind in (ROWS, COLUMNS)]
    assert found[0] == found[1]


@EVERY_VERSION
def test_a_cycle_that_outgrows_rows_goes_on_as_columns_with_what_they_made(version: tuple[str, int]) -> None:
    pipeline = PIPELINES[version]
    values = Values(driver_over(pipeline))
    log: list[Value] = [(seq % 2, values.encode(sale(seq, sale_id=f"s{seq % 4}"))) for seq in range(12)]
    logs = [log, *([] for _ in pipeline.inputs[1:])]
    found = [run(pipeline, logs, [Cycle((2, 2, 8), most)]) for most in (COLUMNS, 2, 5, ROWS)]
    assert found[0] == found[1] == found[2] == found[3]


def test_totals_of_38_digits_are_added_alike_and_wrap_where_128_bits_end() -> None:
    pipeline = PIPELINES[CITY]
    most = 10**38 - 1
    cases = [(most, 1), (most, most), (-most, -most), (2**127 - 1, 1), (most, -most), (0, 2**126)]
    for numbers in cases:
        found = [merged(pipeline, numbers, kind) for kind in (ROWS, COLUMNS)]
        assert found[0] == found[1], numbers
        wrapped = (sum(numbers) + 2**127) % 2**128 - 2**127
        assert wrapped.to_bytes(wrapped.bit_length() // 8 + 1, "big", signed=True) in found[0]


def merged(pipeline: Pipeline, numbers: tuple[int, ...], most: int) -> bytes:
    """The total of partials with these sums, each added in a cycle of its own."""
    driver = driver_over(pipeline)
    prefix = header(driver.registry.register("partials", pipeline.partial_schema()))
    schema = fastavro.parse_schema(plain(pipeline.partial_schema()))
    for number in numbers:
        digits = number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)
        group = {
            "window_start": MICROS, "window_end": MICROS + DAY, "country": "DE", "city": "Ulm",
            "currency": "EUR", "total": digits, "sales_count": 1, "late_count": 0, "late_amount": b"\0",
            "restated_at": None,
        }  # fmt: skip
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, {"watermarks": [], "groups": [group]})
        driver.partials.append(0, None, prefix + out.getvalue())
        with most_rows(most):
            driver.merge(0)
    (value,) = last_values(driver).values()
    return value


@EVERY_VERSION
def test_a_few_sound_events_of_known_writers_are_read_without_a_frame(
    version: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise rows would be right and as slow as columns."""
    driver = driver_over(PIPELINES[version])
    values = Values(driver)

    def poll(seq: int) -> None:
        for newer in (False, True):
            driver.log.append(0, None, values.encode(sale(seq + newer, product=b"tv"), newer=newer))
        driver.run()

    poll(1)
    monkeypatch.setattr(Records, "read", mock.Mock(side_effect=AssertionError("a frame")))
    poll(3)
    assert driver.progress(0).events == 4
    assert sum(total.get("sales_count", 1) for total in driver.totals().values()) == 4


def test_a_condition_on_null_does_not_hold() -> None:
    """No version needs it: a name that is null is refused by a check of its own."""
    whole = PIPELINES[CITY]
    (given_input,) = whole.inputs
    checks = tuple(check for check in given_input.checks if not isinstance(check.holds, IsKnown))
    pipeline = replace(whole, inputs=(replace(given_input, checks=checks),))
    values = Values(driver_over(pipeline))
    log: list[Value] = [(0, values.encode(event)) for event in (sale(1), sale(2, city="\u200bA\u200b"))]
    for events in (log, log[1:]):
        found = [run(pipeline, [events], [Cycle((2,), kind)]) for kind in (ROWS, COLUMNS)]
        assert found[0] == found[1]
        assert found[0][0]["refused"] == {"city is empty": 1}
