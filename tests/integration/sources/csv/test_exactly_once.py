"""Files against a plain GROUP BY over their rows: every row counts once, whatever dies when."""

from __future__ import annotations

import random
import signal
import time
from decimal import Decimal
from typing import Any

import pytest

from kafka_client.clients import ensure_topics
from kafka_client.errors import Refused, Retriable
from sources.csv import records, retract
from sources.csv.source import Source
from sources.csv.validate import EPOCH, MICROSECOND
from tests.support.csv_desk import Desk, Row, oracle, row

# Before or after which call, and which one of them: every step of the way of a file.
PLACES = (
    ("sources.csv.inbox:Inbox.copy", 1, False),
    ("sources.csv.source:Source.hold", 1, False),
    ("sources.csv.source:Source.enter", 1, True),
    ("sources.csv.source:Source.enter", 1, False),
    ("sources.csv.inbox:Inbox.let_go", 1, False),
    ("sources.position_store:PositionStore.write", 3, True),
    ("sources.position_store:PositionStore.write", 3, False),
    ("sources.position_store:PositionStore.write", 6, False),
    ("sources.csv.sale_index:SaleIndex.apply", 2, True),
    ("sources.csv.sale_index:SaleIndex.apply", 2, False),
    ("sources.csv.inbox:Inbox.finish", 1, True),
    ("sources.csv.inbox:Inbox.finish", 1, False),
)


def history(seed: int, count: int) -> list[Row]:
    """Rows of few sales: repeated, corrected, taken back."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        amount = f"{Decimal(rng.randrange(1, 4)) * 10:.4f}"
        operation = "REVERSAL" if rng.random() < 0.1 else "SALE"
        rows.append(row(rng.randrange(count // 2), amount=amount, operation=operation))
    return rows


@pytest.mark.soak
def test_a_take_that_is_killed_at_any_step_neither_loses_nor_doubles(desk: Desk) -> None:
    """kill -9 at each step of the way, one file after the other; the run after it goes on at the exact row."""
    said: list[Row] = []
    for number, (place, call, before) in enumerate(PLACES):
        rows = history(number, 400)
        said += rows
        desk.put(f"sales_{number}.csv", rows)
        more = {"TEST_KILL_BEFORE": "1"} if before else {}
        process = desk.process(TEST_KILL=place, TEST_KILL_AT=str(call), TEST_BLOCK_BYTES="8000", **more)
        assert process.wait(120) == -signal.SIGKILL, f"{place} was not called {call} times"
        done = desk.take()
        assert desk.totals() == oracle(said), place
        assert {file.outcome for file in done.files} <= {"taken", "copy"}, place
        assert sum(file.counts.rows for file in done.files) in (0, 400), place
    assert desk.is_sound()
    position, files = desk.ledger()
    assert position is not None
    assert position.frontier is None
    assert {entry.state for entry in files.values()} == {"DONE"}
    assert {entry.rows for entry in files.values()} == {400}
    assert desk.files("sales_*.csv") == []
    assert len(desk.files("processed/*/*/*/sales_*.csv")) == len(PLACES)


def test_a_take_that_is_killed_at_any_time_neither_loses_nor_doubles(desk: Desk) -> None:
    """kill -9 at random times in the middle of larger files."""
    said: list[Row] = []
    for number in range(3):
        rows = history(number, 6_000)
        said += rows
        desk.put(f"sales_{number}.csv", rows)
    for _ in range(4):
        process = desk.process(TEST_BLOCK_BYTES="20000")
        time.sleep(random.uniform(1.5, 4.0))
        process.kill()
        process.wait()
    desk.take()
    assert desk.totals() == oracle(said)
    assert desk.is_sound()


def test_rows_of_a_file_are_recorded_together_and_after_what_was_published(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frontier rests just before a file that is being taken, and holds nothing back afterwards."""
    monkeypatch.setattr(records, "BLOCK_BYTES", 8_000)
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1_000)
    for name in ("a", "b"):
        desk.put(f"sales_{name}.csv", [row(f"{name}{n}") for n in range(400)])
    desk.take()
    published, entered, taking = EPOCH, [], None
    for key, (_, record) in desk.log(desk.topics.positions):
        if key != b"csv":
            taking = record["entered_at"] if record["state"] == "TAKING" else None
            if taking is not None and taking not in entered:
                assert taking > published
                entered.append(taking)
            continue
        frontier = record["frontier"]
        if taking is not None:
            assert frontier == taking - MICROSECOND
        published = max(published, frontier or EPOCH)
    assert frontier is None
    assert {event["recorded_at"] for event in desk.events()} == set(entered)
    assert len(entered) == 2


def test_the_cache_may_be_thrown_away(desk: Desk) -> None:
    desk.put("sales_1.csv", first := history(1, 500))
    desk.take()
    desk.run("truncate csv_sales, csv_cache")
    desk.put("sales_2.csv", second := history(2, 500))
    desk.take()
    assert desk.totals() == oracle(first + second)
    assert desk.is_sound()


def test_a_cache_that_does_not_fit_the_log_is_made_again(desk: Desk) -> None:
    desk.put("sales_1.csv", first := history(1, 300))
    desk.take()
    desk.run("update csv_cache set next_seq = next_seq + 1000")
    desk.run("delete from csv_sales")
    desk.put("sales_2.csv", second := history(2, 300))
    desk.take()
    assert desk.totals() == oracle(first + second)
    assert desk.is_sound()


def test_a_topic_made_anew_is_refused(desk: Desk) -> None:
    from confluent_kafka import KafkaException

    from kafka_client import clients

    desk.put("sales_1.csv", [row(1)])
    desk.take()
    client = clients.admin(desk.stack.kafka)
    client.delete_topics([desk.topics.events.name])[desk.topics.events.name].result()
    deadline = time.monotonic() + 60
    while True:
        try:
            ensure_topics(desk.stack.kafka, [desk.topics.events])
            break
        except KafkaException:
            assert time.monotonic() < deadline
    desk.put("sales_2.csv", [row(2)])
    with pytest.raises(Refused, match=r"was .* and is"):
        desk.take()
    assert desk.files("sales_*.csv") == ["sales_2.csv"]


def test_a_file_whose_copy_went_ends_clearly_and_may_be_put_in_again(desk: Desk) -> None:
    rows = [row(n) for n in range(400)]
    path = desk.put("sales_1.csv", rows)
    content = path.read_bytes()
    process = desk.process(
        TEST_KILL="sources.csv.sale_index:SaleIndex.apply", TEST_KILL_AT="2", TEST_BLOCK_BYTES="8000"
    )
    assert process.wait(120) == -signal.SIGKILL
    for copy in (desk.inbox / ".taking").glob("?" * 64):
        copy.unlink()
    (lost,) = desk.take().files
    assert lost.outcome == "lost"
    assert 0 < lost.counts.rows < 400
    position, _ = desk.ledger()
    assert position is not None
    assert position.frontier is None
    # Of another file, between the two parts.
    desk.put("sales_2.csv", [row("other")])
    desk.take()
    (desk.inbox / ".x").write_bytes(content)
    (desk.inbox / ".x").rename(path)
    (taken,) = desk.take().files
    assert taken.outcome == "taken"
    assert taken.counts.duplicates == lost.counts.rows
    assert desk.totals() == oracle([*rows, row("other")])
    # Both parts are the file's.
    done = desk.retract("sales_1.csv")
    assert (done.taken_back, done.left) == (400, 0)
    assert desk.totals() == oracle([row("other")])
    assert desk.is_sound()


def test_taking_back_what_was_cut_off_is_ended_before_the_frontier_is_let_go(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several transactions, of which one came through; nothing waits in the inbox then."""
    desk.put("sales_1.csv", [row(n) for n in range(8)])
    desk.put("sales_2.csv", [row("other")])
    desk.take()
    real, calls = Source.write, 0

    def write(self: Source, *arguments: Any, **more: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Retriable("cut off")
        real(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(retract, "BATCH", 3)
        patch.setattr(Source, "write", write)
        with pytest.raises(Retriable):
            desk.retract("sales_1.csv")
    with pytest.raises(Refused, match="half taken back"):
        desk.retract("sales_2.csv")
    before = len(desk.positions())
    assert desk.positions()[-1]["frontier"] is not None
    (done,) = desk.take().files
    assert (done.name, done.outcome) == ("sales_1.csv", "retracted")
    assert "8 sales" in done.reason
    assert desk.totals() == oracle([row("other")])
    assert desk.is_sound()
    reversals = [event for event in desk.events() if event["operation"] == "REVERSAL"]
    assert len(reversals) == 8
    published = [position["frontier"] for position in desk.positions()]
    assert published[-1] is None
    assert all(frontier is not None for frontier in published[before - 1 : -1])
    _, files = desk.ledger()
    assert sorted(entry.state for entry in files.values()) == ["DONE", "RETRACTED"]
