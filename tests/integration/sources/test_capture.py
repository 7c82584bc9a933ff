"""The design's "Change capture": an event's content, what stops capture, and what the frontier promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

from kafka_client import clients
from kafka_client.errors import Refused
from sources.position_store import SourceOffset
from sources.postgres import capture
from sources.postgres.capture import Session
from sources.postgres.lsn import lsn_number
from sources.postgres.stream import Stream
from stack import databases
from tests.support.capture import COLUMNS, SALE, Sales, captured, refused
from tests.support.waiting import wait_until


def test_an_event_says_what_the_row_said(sales: Sales) -> None:
    with sales.capturing() as running:
        captured(sales, running)
        before = datetime.now(UTC) - timedelta(seconds=1)
        sales.run(SALE.format("a", "19.9901"))
        ((key, event),) = sales.wait(lambda: sales.log(sales.topics.events), running)
    assert key == b"a"
    assert before < event.pop("recorded_at") < datetime.now(UTC)
    assert event == {
        "source": "postgres", "seq": 1, "sale_id": "a", "operation": "SALE",
        "sold_at": datetime(2026, 5, 4, 3, 2, 1, 1, tzinfo=UTC), "city": "Köln", "country": "DE", "salesman_id": "s1",
        "salesman_name": "Anna", "product": "TV", "quantity": 2, "amount": Decimal("19.9901"), "currency": "EUR",
    }  # fmt: skip


def is_at(sales: Sales, next_seq: int) -> bool:
    return sales.position().next_seq == next_seq


def test_one_commit_alone_is_sent_at_once(sales: Sales) -> None:
    """Not with the next tick: ten sales, one after the other, each in the log before the next is made."""
    with sales.capturing() as running:
        captured(sales, running)
        started = time.monotonic()
        for number in range(10):
            sales.run(SALE.format(number, 1))
            sales.wait(partial(is_at, sales, number + 2), running)
        assert time.monotonic() - started < 10


def test_update_of_equal_columns_emits_nothing(sales: Sales) -> None:
    with sales.capturing() as running:
        captured(sales, running)
        sales.run(
            "alter table public.sales add note text",
            SALE.format("a", 1),
            "update public.sales set note = 'read'",
            "update public.sales set city = city",
            "update public.sales set city = 'Bonn', note = 'moved'",
        )  # fmt: skip
        sales.wait(lambda: sales.position().next_seq == 4, running)
    assert [(e["operation"], e["city"], e["quantity"]) for e in sales.events()] == [
        ("SALE", "Köln", 2), ("REVERSAL", "Köln", -2), ("SALE", "Bonn", 2)
    ]  # fmt: skip


def test_an_unchanged_large_value_comes_from_the_old_row(sales: Sales) -> None:
    large = "string_agg(md5(n::text), '')"
    with sales.capturing() as running:
        captured(sales, running)
        sales.run(
            f"insert into public.sales select 'a', now(), 'Bonn', 'DE', 's1', 'Anna', {large}, 1, 1, 'EUR' "
            "from generate_series(1, 500) n",
            "alter table public.sales alter product set storage external",
            "update public.sales set amount = 2",
            "update public.sales set sale_id = 'b'",
        )
        sales.wait(lambda: sales.position().next_seq == 6, running)
        sales.wait(sales.is_equal, running)
    assert {len(event["product"]) for event in sales.events()} == {16_000}


def test_what_no_event_can_hold_is_a_dead_letter_with_both_halves(sales: Sales) -> None:
    sales.run(SALE.format("old", "'NaN'"))
    with sales.capturing() as running:
        captured(sales, running)
        sales.run(
            SALE.format("a", "'NaN'"),
            SALE.format("b", 1),
            "update public.sales set sold_at = 'infinity' where sale_id = 'b'",
            "delete from public.sales where sale_id = 'a'",
            "update public.sales set sold_at = now() where sale_id = 'b'",
        )
        sales.wait(lambda: len(sales.log(sales.topics.dead_letters)) == 5, running)
        sales.wait(lambda: len(sales.events()) == 3, running)
    letters = [value for _, value in sales.log(sales.topics.dead_letters)]
    assert [letter["reason"] for letter in letters] == [
        "sale: amount is NaN",
        "sale: amount is NaN",
        "sale: sold_at is outside of the years 1 to 9999",
        "reversal: amount is NaN",
        "reversal: sold_at is outside of the years 1 to 9999",
    ]
    assert {letter["origin"] for letter in letters} == {"public.sales"}
    assert [json.loads(letter["value"])["sale_id"] for letter in letters] == ["old", "a", "b", "a", "b"]
    assert json.loads(letters[2]["value"])["sold_at"] == "infinity"
    assert len({key for key, _ in sales.log(sales.topics.dead_letters)}) == 5
    sales.run("delete from public.sales where amount = 'NaN'")
    assert sales.is_equal()


def test_a_row_that_kafka_would_not_take_is_a_dead_letter(sales: Sales) -> None:
    """With its reversal, and capture goes on; the largest row that is an event goes through."""
    sales.run(SALE.format("small", 1))
    with sales.capturing() as running:
        captured(sales, running)
        sales.run(
            SALE.format("a", 1).replace("'TV'", "repeat('x', 2000000)"),
            SALE.format("b", 1).replace("'TV'", "repeat('x', 899900)"),
            "delete from public.sales where sale_id in ('a', 'b')",
        )
        sales.wait(lambda: len(sales.events()) == 3, running)
        sales.wait(lambda: len(sales.log(sales.topics.dead_letters)) == 2, running)
    letters = [value for _, value in sales.log(sales.topics.dead_letters)]
    assert [letter["reason"] for letter in letters] == [
        "sale: the row is larger than 900000 bytes",
        "reversal: the row is larger than 900000 bytes",
    ]
    assert all(len(letter["value"]) < 10_000 for letter in letters)


@pytest.mark.parametrize("size", [10_000, 2_000_000])
def test_a_record_that_is_too_large_needs_a_person(sales: Sales, size: int) -> None:
    """For the broker or already for the client: to try again would end in the same place for ever."""
    topic = replace(sales.topics.events, name=f"small-{uuid4().hex}", config={"max.message.bytes": "5000"})
    clients.ensure_topics(sales.stack.kafka, [topic])
    ledger = sales.ledger()
    ledger.open()
    with pytest.raises(Refused, match="larger than Kafka takes"):
        ledger.write(SourceOffset(), {topic.name: [(b"a", os.urandom(size))]})
    ledger.close()


def test_a_rolled_back_change_is_no_event(sales: Sales) -> None:
    with sales.capturing() as running:
        captured(sales, running)
        sales.run("begin", SALE.format("a", 1), "savepoint s", SALE.format("b", 1), "rollback to s", "commit")
        sales.run("begin", SALE.format("c", 1), "rollback")
        sales.run(SALE.format("d", 1))
        sales.wait(lambda: sales.position().next_seq == 3, running)
    assert {event["sale_id"] for event in sales.events()} == {"a", "d"}


@pytest.mark.soak
def test_a_long_transaction_with_nothing_for_us_is_passed(
    sales: Sales, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than wal_sender_timeout: the server gets replies, the position moves within it."""
    feed, slow, sessions = Stream.feed, threading.Event(), []

    def slowly(stream: Stream, data: bytes) -> None:
        if slow.is_set():
            time.sleep(0.001)
        feed(stream, data)

    def counted(session: Session, stop: threading.Event) -> None:
        sessions.append(session)
        run(session, stop)

    run = Session.run
    monkeypatch.setattr(Session, "run", counted)
    # Before capture starts: it holds the method while it reads a batch.
    monkeypatch.setattr(Stream, "feed", slowly)
    (database,) = sales.run("select current_database()")[0]
    sales.run(f"alter database {database} set wal_sender_timeout = '3s'")
    with sales.capturing() as running:
        captured(sales, running)
        sales.run("alter table public.sales add note int", SALE.format("a", 1))
        sales.wait(sales.events, running)
        slow.set()
        sales.run(
            "do $$ begin for n in 1..8000 loop update public.sales set note = n; end loop; end $$",
            SALE.format("b", 1),
        )
        sales.wait(lambda: len(sales.events()) == 2, running)
    assert len(sessions) == 1
    rows = [
        json.loads(v["detail"])["rows"] for k, (_, v) in sales.log(sales.topics.positions) if k == b"postgres"
    ]
    within = [n for n in rows if n]
    assert len(within) >= 4
    assert within == sorted(within)


STOPPERS = {
    "truncate": ("truncate public.sales", "TRUNCATE"),
    "no old row": (
        "alter table public.sales replica identity default; delete from public.sales",
        "replica identity full",
    ),
    "dropped column": ("alter table public.sales drop city; delete from public.sales", "no column city"),
    "another dropped column": (
        "alter table public.sales drop product; "
        "insert into public.sales values ('b', now(), 'Bonn', 'DE', 's1', 'Anna', 1, 1, 'EUR')",
        "no column product",
    ),
}  # fmt: skip


@pytest.mark.parametrize("stopper", STOPPERS)
def test_a_change_that_cannot_be_reversed_stops_before_the_position_moves(sales: Sales, stopper: str) -> None:
    """What came before is in the log, and a restart stops at the same place instead of passing it."""
    statement, reason = STOPPERS[stopper]
    running = sales.start()
    captured(sales, running)
    sales.run(SALE.format("a", 1))
    sales.wait(lambda: sales.position().next_seq == 2, running)
    ((before,),) = sales.run("select pg_current_wal_insert_lsn()")
    sales.run(statement)
    assert reason in refused(sales, running)
    position = sales.position()
    assert position.next_seq == 2
    # Between its own messages PostgreSQL writes some of its own, but the position stays in front of this commit.
    assert lsn_number(position.detail["lsn"]) <= lsn_number(before) + 100_000
    again = sales.start()
    assert reason in refused(sales, again)
    assert len(sales.events()) == 1


def test_a_slot_that_is_gone_stops_capture(sales: Sales) -> None:
    with sales.capturing() as running:
        captured(sales, running)
    sales.run(f"select pg_drop_replication_slot('{sales.settings.sales_slot}')")
    assert "is gone" in refused(sales, sales.start())
    # Made again under its name it is another slot: what happened meanwhile is not in it.
    sales.run(SALE.format("a", 1))
    sales.run(f"select pg_create_logical_replication_slot('{sales.settings.sales_slot}', 'pgoutput')")
    assert "beyond the stored position" in refused(sales, sales.start())


def test_a_slot_that_nobody_knows_is_left_alone(sales: Sales) -> None:
    sales.run(f"select pg_create_logical_replication_slot('{sales.settings.sales_slot}', 'pgoutput')")
    line = refused(sales, sales.start())
    assert f"select pg_drop_replication_slot('{sales.settings.sales_slot}');" in line
    assert sales.run(
        f"select count(*) from pg_replication_slots where slot_name = '{sales.settings.sales_slot}'"
    ) == [(1,)]


@pytest.mark.parametrize("is_gone", [True, False], ids=["the slot is gone", "the slot is there"])
def test_row_21_without_its_position_capture_reads_no_table_a_second_time(
    sales: Sales, is_gone: bool
) -> None:
    sales.run(SALE.format("a", 1))
    with sales.capturing() as running:
        captured(sales, running)
    producer = Producer(clients.client_config(sales.stack.kafka))
    producer.produce(sales.topics.positions.name, None, key=b"postgres")
    assert producer.flush(30) == 0
    if is_gone:
        sales.run(f"select pg_drop_replication_slot('{sales.settings.sales_slot}')")
    line = refused(sales, sales.start())
    assert "no position of postgres, but the log holds its events up to seq 1" in line
    assert "Restore the topic source-positions" in line
    assert len(sales.events()) == 1


def test_another_server_stops_capture(sales: Sales) -> None:
    """A position is of one system and one timeline."""
    with sales.capturing() as running:
        captured(sales, running)
    for change in ({"system": "1"}, {"timeline": 7}, {"slot": "other"}):
        ledger = sales.ledger()
        ledger.open()
        right = ledger.position
        assert right is not None
        ledger.write(SourceOffset(right.next_seq, right.frontier, {**right.detail, **change}), {})
        assert "Positions of one mean nothing on the other" in refused(sales, sales.start())
        ledger.open()
        ledger.write(right, {})
        ledger.close()


MISSING = {
    "publication": (
        "drop publication electrored_sales",
        "create publication electrored_sales for table public.sales;",
    ),
    "table in it": (
        "alter publication electrored_sales drop table public.sales",
        "alter publication electrored_sales add table public.sales;",
    ),
    "deletes": (
        "alter publication electrored_sales set (publish = 'insert')",
        "set (publish = 'insert, update, delete, truncate');",
    ),
    "rows": (
        "alter publication electrored_sales set table public.sales where (country = 'DE')",
        "alter publication electrored_sales set table public.sales;",
    ),
    "columns": (
        "alter table public.sales replica identity default;"
        " alter publication electrored_sales set table public.sales (sale_id, city)",
        "alter publication electrored_sales set table public.sales;",
    ),
    "table": ("drop table public.sales", "there is no table public.sales"),
    "key": (
        "alter table public.sales drop constraint sales_pkey",
        "alter table public.sales add primary key (sale_id);",
    ),
    "privilege": (
        f"revoke select on public.sales from {databases.CAPTURE}",
        f'grant select on public.sales to "{databases.CAPTURE}";',
    ),
    "column": ("alter table public.sales drop amount", "no column amount"),
}  # fmt: skip


@pytest.mark.parametrize("missing", MISSING)
def test_what_is_missing_is_said_with_the_sql_to_run(sales: Sales, missing: str) -> None:
    statement, line = MISSING[missing]
    sales.run(statement)
    assert line in refused(sales, sales.as_capture_role().start())
    assert sales.run(
        f"select count(*) from pg_replication_slots where slot_name = '{sales.settings.sales_slot}'"
    ) == [(0,)]


WHILE_RUNNING = {
    "table in it": ("alter publication electrored_sales drop table public.sales", "is not published"),
    "deletes": ("alter publication electrored_sales set (publish = 'insert')", "leaves changes out"),
    "rows": (
        "alter publication electrored_sales set table public.sales where (country = 'DE')",
        "filters rows",
    ),
    "publication": ("drop publication electrored_sales", "there is no publication"),
    "name": ("alter table public.sales rename to sold", "is now public.sold"),
    "schema": ("create schema old; alter table public.sales set schema old", "is now old.sales"),
    "another table": (
        "begin; alter table public.sales rename to sold; create table public.sales (like public.sold including all); "
        "alter publication electrored_sales add table public.sales; commit",
        "is now public.sold",
    ),
    "made again": (
        "begin; create table sold (like public.sales including all); drop table public.sales; "
        "alter table sold rename to sales; alter publication electrored_sales add table public.sales; commit",
        "is another table",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", WHILE_RUNNING)
def test_what_is_not_published_whole_any_more_stops_capture(sales: Sales, change: str) -> None:
    statement, reason = WHILE_RUNNING[change]
    running = sales.start()
    captured(sales, running)
    sales.run(statement)
    line = refused(sales, running)
    assert reason in line
    assert "start anew with another slot and empty topics" in line


def test_another_table_by_the_name_is_refused_at_a_start(sales: Sales) -> None:
    with sales.capturing() as running:
        captured(sales, running)
    sales.run(
        "alter table public.sales rename to sold",
        "create table public.sales (like public.sold including all)",
        "alter publication electrored_sales add table public.sales",
    )
    assert "is now public.sold" in refused(sales, sales.start())


def test_changes_of_a_publication_that_are_not_about_the_table_go_unnoticed(sales: Sales) -> None:
    with sales.capturing() as running:
        captured(sales, running)
        sales.run(
            "create table other (n int primary key)",
            "alter publication electrored_sales add table other",
            "alter publication electrored_sales set table other, public.sales",
            "vacuum (full, freeze) pg_publication",
            "vacuum (full, freeze) pg_publication_rel",
            SALE.format("a", 1),
        )
        looked = sales.frontier() + timedelta(seconds=3)
        sales.wait(lambda: sales.frontier() > looked, running)
        assert sales.is_equal()
    with sales.capturing() as running:
        sales.run(SALE.format("b", 1))
        sales.wait(sales.is_equal, running)


UNDONE = {
    "table in it": (
        "alter publication electrored_sales drop table public.sales",
        "alter publication electrored_sales add table public.sales",
    ),
    "deletes": (
        "alter publication electrored_sales set (publish = 'delete')",
        "alter publication electrored_sales set (publish = 'insert, update, delete, truncate')",
    ),
    "rows": (
        "alter publication electrored_sales set table public.sales where (country = 'FR')",
        "alter publication electrored_sales set table public.sales",
    ),
    "publication": (
        "drop publication electrored_sales",
        "create publication electrored_sales for table public.sales",
    ),
}


@pytest.mark.parametrize("at", ["while it runs", pytest.param("at a start", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "change",
    [pytest.param(name, marks=[pytest.mark.soak] if name in ("rows", "deletes") else []) for name in UNDONE],
)
def test_a_change_of_the_publication_that_was_undone_stops_capture(
    sales: Sales, monkeypatch: pytest.MonkeyPatch, change: str, at: str
) -> None:
    """A sale was left out between two checks; a person may confirm that none was lost, for this change only."""
    before, after = UNDONE[change]
    running = sales.start()
    captured(sales, running)
    if at == "at a start":
        running.stop()
    sales.run(f"begin; {before}; commit; begin; {SALE.format('a', 1)}; commit; begin; {after}; commit")
    if at == "while it runs":
        refused(sales, running)
    line = refused(sales, sales.start())
    assert "start anew with another slot and empty topics" in line
    setting = "ELECTRORED_SALES_PUBLICATION_ACCEPTED="
    assert setting in line
    sales.settings = sales.settings.model_copy(
        update={"sales_publication_accepted": line.partition(setting)[2]}
    )
    with sales.capturing() as running:
        sales.run(SALE.format("b", 1))
        sales.wait(sales.events, running)
    sales.settings = sales.settings.model_copy(update={"sales_publication_accepted": ""})
    with sales.capturing() as running:
        sales.run(SALE.format("c", 1))
        sales.wait(lambda: len(sales.events()) == 2, running)
    sales.run(before, after)
    assert setting in refused(sales, sales.start())


def test_a_sale_under_another_name_of_the_table_stops_capture(sales: Sales) -> None:
    """The stream shows the name under which a table was changed, though it has its own name again."""
    running = sales.start()
    captured(sales, running)
    sales.run(SALE.format("a", 1))
    sales.wait(sales.events, running)
    running.stop()
    sales.run(
        "alter table public.sales rename to sold",
        SALE.format("b", 1).replace("public.sales", "public.sold"),
        "alter table public.sold rename to sales",
    )
    for _ in range(2):
        assert "was called public.sold" in refused(sales, sales.start())


def test_capture_does_not_spin_while_a_transaction_is_open(
    sales: Sales, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it is not committed, nor when its sender pauses in the middle of it: one check a second."""
    fills: list[bool] = []
    feed, fill = Stream.feed, Session._fill
    streams: list[Stream] = []
    sender = 0

    def counted(session: Session, stop: threading.Event) -> bool:
        fills.append(True)
        return fill(session, stop)

    def pausing(stream: Stream, data: bytes) -> None:
        feed(stream, data)
        if stream.size == 1_000 and not streams:
            streams.append(stream)
            os.kill(sender, signal.SIGSTOP)

    def is_at_rest() -> bool:
        """Over three checks, in this process, which does nothing else: at most two a second."""
        before, used, started = len(fills), time.process_time(), time.monotonic()
        wait_until(lambda: len(fills) >= before + 3, what="three looks", poll_seconds=0.2)
        seconds = time.monotonic() - started
        return seconds >= 1.5 and time.process_time() - used < 0.2 * seconds

    monkeypatch.setattr(Session, "_fill", counted)
    monkeypatch.setattr(Stream, "feed", pausing)
    writer = sales.connect()
    writer.autocommit = False
    with sales.capturing() as running, closing(writer):
        captured(sales, running)
        slot = f"slot_name = '{sales.settings.sales_slot}'"
        ((sender,),) = sales.run(f"select active_pid from pg_replication_slots where {slot}")
        with writer.cursor() as cursor:
            cursor.execute(
                f"insert into public.sales ({COLUMNS}) select n::text, now(), 'Bonn', 'DE', 's1', 'Anna', "
                "repeat('x', 500), 1, 1, 'EUR' from generate_series(1, 40000) n"
            )
        sales.wait(is_at_rest, running)
        writer.commit()
        sales.wait(lambda: streams, running)
        try:
            sales.wait(is_at_rest, running)
            assert streams[0].is_inside
        finally:
            os.kill(sender, signal.SIGCONT)
        sales.wait(lambda: sales.position().next_seq == 40_001, running)


@pytest.mark.parametrize("at", ["while it runs", "at a start"])
@pytest.mark.parametrize("change", ["made again", "more partitions"])
def test_another_topic_of_events_stops_capture(
    sales: Sales, monkeypatch: pytest.MonkeyPatch, change: str, at: str
) -> None:
    """A restart refuses as well, and nothing is written to a topic that is not the ledger's."""
    monkeypatch.setattr(capture, "TOPIC_SECONDS", 1.0)
    running = sales.start()
    captured(sales, running)
    sales.run(SALE.format("a", 1))
    sales.wait(sales.events, running)
    if at == "at a start":
        running.stop()
    name, count = sales.topics.events.name, sales.topics.events.partitions
    admin = clients.admin(sales.stack.kafka)
    if change == "made again":
        admin.delete_topics([name])[name].result()
        sales.wait(lambda: name not in clients.admin(sales.stack.kafka).list_topics(timeout=10).topics)
        clients.ensure_topics(sales.stack.kafka, [sales.topics.events])
    else:
        admin.create_partitions([NewPartitions(name, count + 1)])[name].result()
    reason = "was re-created or resized"
    if at == "while it runs":
        assert reason in refused(sales, running)
    assert reason in refused(sales, sales.start())


def test_the_least_privileged_role_can_capture(sales: Sales) -> None:
    sales.run(SALE.format("a", 1))
    with sales.as_capture_role().capturing() as running:
        captured(sales, running)
        sales.run(SALE.format("b", 1))
        sales.wait(sales.is_equal, running)


def test_the_frontier_moves_in_silence_and_never_back(sales: Sales) -> None:
    """About once a second, also without sales and when only other tables are written."""
    with sales.capturing() as running:
        captured(sales, running)
        sales.run("create table other (n int)", "insert into other values (1)")
        start = datetime.now(UTC)
        sales.wait(lambda: sales.frontier() > start + timedelta(seconds=2), running)
    frontiers = [
        value[1]["frontier"] for key, value in sales.log(sales.topics.positions) if key == b"postgres"
    ]
    assert frontiers == sorted(frontiers)
    assert frontiers[-1] <= datetime.now(UTC)


def test_nothing_is_recorded_at_or_before_a_published_frontier(sales: Sales) -> None:
    """Also when a commit's own time is older, as after a clock that went back."""
    with sales.capturing() as running:
        captured(sales, running)
        sales.wait(lambda: sales.frontier().year > 1970, running)
    ledger = sales.ledger()
    ledger.open()
    position = ledger.position
    assert position is not None
    ahead = datetime.now(UTC) + timedelta(hours=1)
    ledger.write(SourceOffset(position.next_seq, ahead, position.detail), {})
    ledger.close()
    with sales.capturing() as running:
        sales.run(SALE.format("a", 1))
        (event,) = sales.wait(sales.events, running)
    assert event["recorded_at"] == ahead + timedelta(microseconds=1)
    assert sales.frontier() == ahead


def test_the_snapshot_holds_the_frontier_at_the_epoch(sales: Sales) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    sales.run(SALE.format("a", 1))
    with sales.capturing() as running:
        sales.wait(lambda: sales.position_or_none() and sales.frontier() > epoch, running)
    values = [value for key, (_, value) in sales.log(sales.topics.positions) if key == b"postgres"]
    unfinished = [v["frontier"] for v in values if json.loads(v["detail"])["snapshot"] != "done"]
    assert len(unfinished) >= 3
    assert set(unfinished) == {epoch}
    (event,) = sales.events()
    assert event["recorded_at"] == event["sold_at"]


def test_the_slot_does_not_hold_back_wal_that_is_not_ours(sales: Sales) -> None:
    with sales.capturing() as running:
        captured(sales, running)
        sales.run("create table other as select generate_series(1, 10000)")
        ((end,),) = sales.run("select pg_current_wal_lsn()")
        slot = f"slot_name = '{sales.settings.sales_slot}'"
        query = f"select confirmed_flush_lsn >= '{end}' from pg_replication_slots where {slot}"
        sales.wait(lambda: sales.run(query) == [(True,)], running)


def test_a_stalled_predecessor_gives_the_slot_up(sales: Sales) -> None:
    """A process that hangs still holds the slot; its successor ends its connection."""
    process = sales.process()
    try:
        sales.wait(lambda: sales.phase() == "done")
        process.send_signal(signal.SIGSTOP)
        sales.run(SALE.format("a", 1))
        started = time.monotonic()
        with sales.capturing() as running:
            sales.wait(sales.is_equal, running)
            assert time.monotonic() - started < 10
            process.send_signal(signal.SIGCONT)
            assert process.wait(60) == 1
    finally:
        process.kill()
        process.wait()


def test_help_needs_no_environment() -> None:
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "sources", "postgres", "--help"],
        env=environment,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0
