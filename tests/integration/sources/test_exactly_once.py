"""The design's first rule of "Exactly once": events and position in one transaction, the slot confirmed after it."""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from kafka_client import clients
from kafka_client.errors import Fenced
from sources.position_store import PositionStore, SourceOffset
from sources.postgres import capture
from sources.postgres.lsn import lsn_number
from tests.support.capture import Sales

ROWS = (
    "insert into public.sales select '{0}-' || n, now(), 'Berlin', 'DE', 's1', 'Anna', 'TV', 2, n / 7.0, 'EUR' "
    "from generate_series(1, {1}) n"
)


def confirmed(sales: Sales) -> int:
    ((lsn,),) = sales.run(
        f"select confirmed_flush_lsn from pg_replication_slots where slot_name = '{sales.settings.sales_slot}'"
    )
    return lsn_number(lsn)


def test_slot_is_confirmed_only_after_the_commit(sales: Sales, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before every commit the slot stands no further than the ledger; afterwards it follows."""
    written: list[tuple[int, int]] = []
    write = PositionStore.write

    def writing(self: PositionStore, position: SourceOffset, *rest: Any, **more: Any) -> None:
        if (
            position.detail["snapshot"] != "opening"
            and self.position
            and self.position.detail["snapshot"] != "opening"
        ):
            written.append((confirmed(sales), lsn_number(self.position.detail["lsn"])))
        write(self, position, *rest, **more)

    monkeypatch.setattr(PositionStore, "write", writing)
    with sales.capturing() as running:
        for number in range(5):
            sales.run(ROWS.format(number, 50))
            # Each in a commit of its own, however slowly capture begins.
            sales.wait(sales.is_equal, running)
        target = lsn_number(sales.position().detail["lsn"])
        sales.wait(lambda: confirmed(sales) >= target, running)
    assert len(written) > 2
    assert all(slot <= ledger for slot, ledger in written)


@pytest.mark.soak
def test_a_killed_capture_neither_loses_nor_doubles(sales: Sales) -> None:
    """kill -9 in the middle of a load, several times; inserts, updates, deletes and one big transaction."""
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            sales.run(
                ROWS.format(number, 3_000 if number % 10 == 0 else 20),
                f"update public.sales set amount = amount + 0.01 where sale_id like '{number}-1%'",
                f"delete from public.sales where sale_id like '{number}-2%'",
            )

    loader = threading.Thread(target=load)
    loader.start()
    try:
        for _ in range(6):
            process = sales.process()
            time.sleep(random.uniform(1.2, 2.5))
            process.kill()
            process.wait()
    finally:
        stop.set()
        loader.join()
    with sales.capturing() as running:
        sales.wait(sales.is_equal, running)
    assert sales.seqs_are_unique()
    assert len(sales.events()) > 1_000


def test_sigterm_ends_it_cleanly(sales: Sales) -> None:
    sales.run(ROWS.format("a", 10))
    process = sales.process()
    sales.wait(sales.is_equal)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


@pytest.mark.parametrize("counted", [True, False])
def test_an_unknown_outcome_is_settled_by_the_position(
    sales: Sales, monkeypatch: pytest.MonkeyPatch, counted: bool
) -> None:
    """An unanswered commit may have counted or not: the producer is replaced and the position read back."""
    lost: list[int] = []
    make = clients.transactional_producer

    class Unanswered:
        """A producer whose every third commit seems to time out."""

        def __init__(self, *arguments: Any) -> None:
            self._real = make(*arguments)
            self._commits = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def commit_transaction(self, timeout: float) -> None:
            self._commits += 1
            if self._commits % 3:
                self._real.commit_transaction(timeout)
                return
            if counted:
                self._real.commit_transaction(timeout)
            lost.append(self._commits)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr(clients, "transactional_producer", Unanswered)
    monkeypatch.setattr(capture, "BACKOFF_SECONDS", (0.01,))
    with sales.capturing() as running:
        for number in range(12):
            sales.run(
                ROWS.format(number, 30), f"update public.sales set city = 'Ulm' where sale_id = '{number}-1'"
            )
        sales.wait(sales.is_equal, running)
    assert lost
    assert sales.seqs_are_unique()


def test_zombies_are_fenced(sales: Sales) -> None:
    """Only the last to open the ledger writes; the former ends with a clear error."""
    running = sales.start()
    sales.run(ROWS.format("a", 10))
    sales.wait(sales.is_equal, running)
    ledger = sales.ledger()
    ledger.open()
    sales.run(ROWS.format("b", 10))
    sales.wait(lambda: isinstance(running.error, Fenced))
    assert ledger.position == sales.position()
    ledger.close()


def test_who_was_fenced_once_takes_nothing_back(sales: Sales) -> None:
    """Not even if the error was lost in a thread without a reader: opening again would fence the successor."""
    former, successor = sales.ledger(), sales.ledger()
    former.open()
    former.write(SourceOffset(2, None, {}), {})
    successor.open()
    with pytest.raises(Fenced):
        former.write(SourceOffset(3, None, {}), {})
    with pytest.raises(Fenced):
        former.check_ownership()
    with pytest.raises(Fenced):
        former.open()
    successor.write(SourceOffset(3, None, {}), {})
    for ledger in (former, successor):
        ledger.close()


def test_the_position_is_read_after_fencing_and_to_the_end(sales: Sales) -> None:
    """An open transaction of a predecessor neither counts nor hides what was committed before it."""
    first, second = sales.ledger(), sales.ledger()
    first.open()
    assert first.position is None
    event = (sales.topics.events.name, [(b"k", b"v")])
    first.write(SourceOffset(2, None, {"n": 1}), dict([event]))
    producer = first._producer
    assert producer is not None
    producer.begin_transaction()
    producer.produce(sales.topics.positions.name, b"half", b"postgres")
    producer.flush(60)
    second.open()
    assert second.position == SourceOffset(2, None, {"n": 1})
    second.write(SourceOffset(3, None, {"n": 2}), {})
    with pytest.raises(KafkaException):
        producer.commit_transaction(60)
    third = sales.ledger()
    third.open()
    assert third.position == SourceOffset(3, None, {"n": 2})
    assert len(sales.raw_log(sales.topics.events)) == 1
    for ledger in (first, second, third):
        ledger.close()


def test_a_big_transaction_is_cut(sales: Sales, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pieces are separate Kafka transactions; the frontier rests within it, and all of it is recorded together."""
    monkeypatch.setattr(capture, "BATCH_CHANGES", 1_000)
    positions: list[dict[str, Any]] = []
    frontiers: list[Any] = []
    write = PositionStore.write

    def writing(self: PositionStore, position: SourceOffset, *rest: Any, **more: Any) -> None:
        write(self, position, *rest, **more)
        positions.append(dict(position.detail))
        frontiers.append(position.frontier)

    with sales.capturing() as running:
        sales.wait(lambda: sales.phase() == "done", running)
        monkeypatch.setattr(PositionStore, "write", writing)
        sales.run(ROWS.format("a", 20_000))
        sales.wait(lambda: sales.position().next_seq > 20_000, running)
    cut = [frontier for position, frontier in zip(positions, frontiers, strict=True) if position["rows"]]
    assert len(cut) > 3
    assert len(set(cut)) == 1
    assert len({event["recorded_at"] for event in sales.events()}) == 1
    assert sales.is_equal()


@pytest.mark.soak
def test_a_cut_transaction_is_gone_on_with_after_a_kill(
    sales: Sales, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run skips exactly the rows that are in the log."""
    monkeypatch.setattr(capture, "BATCH_CHANGES", 500)
    monkeypatch.setattr(capture, "BACKOFF_SECONDS", (0.01,))
    failures = 0
    write = PositionStore.write

    def writing(self: PositionStore, position: SourceOffset, *rest: Any, **more: Any) -> None:
        nonlocal failures
        write(self, position, *rest, **more)
        if position.detail["rows"] and failures < 5:
            failures += 1
            self.close()

    monkeypatch.setattr(PositionStore, "write", writing)
    with sales.capturing() as running:
        sales.wait(lambda: sales.phase() == "done", running)
        sales.run(
            ROWS.format("a", 20_000)
            + "; update public.sales set amount = amount + 1, city = 'Ulm' where sale_id like '%7'"
        )
        sales.wait(sales.is_equal, running)
    assert failures == 5
    assert sales.seqs_are_unique()
