"""Rows 7, 8, 9 and 11: what capture waits for is reported, what a person has to mend ends it, both with what to do."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import psycopg2.extensions
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine, make_url
from structlog.testing import capture_logs

from observability.waits import WAITS
from observer import probes
from sources.postgres import watch
from sources.postgres.database import Database
from stack import databases
from stack.embedded import Embedded
from tests.support.capture import SALE, Sales, captured, refused
from tests.support.postgres_server import SETTINGS, Server


def waits_for(on: str) -> str:
    """What is reported of it; empty: it is not waited for."""
    return next((wait.detail for wait in WAITS.current() if wait.on == on), "")


def is_reported(detail: str) -> bool:
    return detail in str(WAITS.current())


def lag() -> float:
    value = REGISTRY.get_sample_value("electrored_lag_bytes")
    assert value is not None
    return value


@contextmanager
def opened(sales: Sales, *statements: str) -> Iterator[psycopg2.extensions.connection]:
    """A transaction that stays open."""
    with closing(sales.connect()) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        yield connection


@contextmanager
def role(sales: Sales, attributes: str) -> Iterator[tuple[str, Sales]]:
    """A role of the test's own, and capture with it."""
    name = f"role_{uuid4().hex[:8]}"
    sales.run(
        f"create role {name} login password 'secret' {attributes}", f"grant select on public.sales to {name}"
    )
    url = make_url(sales.settings.sales_db_url.get_secret_value()).set(username=name, password="secret")
    settings = sales.settings.model_copy(
        update={"sales_db_url": SecretStr(url.render_as_string(hide_password=False))}
    )
    other = Sales(sales.stack, settings, sales.topics)
    # Whatever the test needs a superuser for.
    other.run = sales.run  # type: ignore[method-assign]
    try:
        yield name, other
    finally:
        sales.run(
            f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '{name}'",
            f"drop owned by {name}",
            f"drop role {name}",
        )


def test_row_7_a_role_that_may_not_replicate_is_refused_at_once(sales: Sales) -> None:
    with role(sales, "noreplication") as (name, limited):
        # Whatever others call theirs.
        sales.run(f"create role {name}_replication_readers role {name}")
        try:
            line = refused(sales, limited.start())
        finally:
            sales.run(f"drop role {name}_replication_readers")
    assert f'alter role "{name}" replication;' in line
    assert f'grant rds_replication to "{name}";' in line
    assert sales.position_or_none() is None


@pytest.mark.soak
def test_rows_7_and_11_what_the_server_has_no_room_for(stack: Embedded, made: Server) -> None:
    """No slot: a person has to mend it. No sender: it may pass. A slot that was idle for too long: with its reason."""
    made.put_back("empty")
    made.settings = SETTINGS | {"max_replication_slots": "1", "max_wal_senders": "1"}
    made.settings |= {"idle_replication_slot_timeout": "1s"}
    try:
        made.start()
        sales = made.sales(stack)
        sales.run("select pg_create_physical_replication_slot('taken', true)")
        assert "select pg_drop_replication_slot('…')" in refused(sales, sales.start())
        sales.run("select pg_drop_replication_slot('taken')")
        url = make_url(sales.settings.sales_db_url.get_secret_value())
        with psycopg.connect(
            host=url.host, port=url.port, user=url.username, password=url.password, replication="database",
            dbname=url.database,
        ), sales.capturing() as running:  # fmt: skip
            sales.wait(lambda: "all 1 of max_wal_senders are in use" in waits_for("postgres"), running)
        with sales.capturing() as running:
            captured(sales, running)
            sales.wait(lambda: not WAITS.current(), running)
        status = (
            f"select wal_status from pg_replication_slots where slot_name = '{sales.settings.sales_slot}'"
        )
        sales.wait(lambda: sales.run("checkpoint", status) == [("lost",)])
        assert "(idle_replication_slot_timeout)" in refused(sales, sales.start())
        (seen, *_) = probes.probe_slot(create_engine(made.url, poolclass=NullPool), sales.settings.sales_slot)
        assert (seen.labels["status"], seen.labels["reason"]) == ("lost", "idle_timeout")
    finally:
        made.stop()
        made.settings = SETTINGS


def test_row_8_limits_of_the_role_are_not_captures(sales: Sales) -> None:
    """On either of its connections, and for more than the limits' length."""
    ((database,),) = sales.run("select current_database()")
    limited = sales.as_capture_role()
    limits = {
        "statement_timeout": "1ms", "lock_timeout": "1ms", "idle_in_transaction_session_timeout": "1ms",
        "idle_session_timeout": "10ms", "default_transaction_read_only": "on", "transaction_timeout": "100ms",
        "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
        "wal_sender_timeout": "500ms",
    }  # fmt: skip
    for name, value in limits.items():
        sales.run(f"alter role {databases.CAPTURE} in database {database} set {name} = '{value}'")
    try:
        sales.run(SALE.format("a", 1))
        with limited.capturing() as running:
            captured(sales, running)
            feed = running.capture._session._feed  # type: ignore[union-attr]
            looked = sales.frontier()
            sales.wait(lambda: (sales.frontier() - looked).total_seconds() > 3, running)
            sales.run(SALE.format("b", 1))
            sales.wait(sales.is_equal, running)
            assert running.capture._session._feed is feed, "one session throughout"  # type: ignore[union-attr]
    finally:
        sales.run(f"alter role {databases.CAPTURE} in database {database} reset all")


@pytest.mark.soak
def test_row_8_what_keeps_failing_is_a_wait_and_its_lag_is_unknown(
    sales: Sales, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        role(sales, "replication") as (name, other),
        capture_logs() as logged,
        other.capturing() as running,
    ):
        captured(sales, running)
        sales.wait(lambda: not math.isnan(lag()), running)
        sales.run(
            f"alter role {name} nologin",
            f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '{name}'",
        )
        sales.run(SALE.format("a", 1))
        sales.wait(lambda: "is not permitted to log in" in waits_for("postgres"), running)
        since = WAITS.current()[0].since
        sales.wait(lambda: math.isnan(lag()), running)
        assert "is not permitted to log in" in str(logged)
        assert WAITS.current()[0].since == since
        sales.run(f"alter role {name} login")
        sales.wait(sales.is_equal, running)
        sales.wait(lambda: not WAITS.current() and not math.isnan(lag()), running)
    assert sales.position().next_seq == 2


def test_row_8_the_log_says_what_the_server_said_last(sales: Sales) -> None:
    with capture_logs() as logged, sales.capturing() as running:
        captured(sales, running)
        slot = f"slot_name = '{sales.settings.sales_slot}'"
        sales.run(f"select pg_terminate_backend(active_pid) from pg_replication_slots where {slot}")
        sales.wait(lambda: any(entry["event"] == "interrupted" for entry in logged), running)
    assert "terminating connection due to administrator command" in str(logged)


def test_row_9_an_open_transaction_at_the_first_start_is_named(
    sales: Sales, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers are not waited for; a stop ends the wait; the slot is created when the transaction has ended."""
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.5)
    limited = sales.as_capture_role()
    with opened(sales, "set application_name = 'the shop'", SALE.format("a", 1)) as connection:
        pid = connection.info.backend_pid
        running = limited.start()
        line = sales.wait(lambda: waits_for("transaction"), running)
        assert f"pid {pid} of user postgres (application 'the shop')" in line
        assert f"select pg_terminate_backend({pid});" in line
        assert "only a member of pg_read_all_stats sees" in line
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 5
        assert not WAITS.current()
        sales.run(f"grant pg_read_all_stats to {databases.CAPTURE}")
        try:
            running = limited.start()
            assert "open since 20" in sales.wait(lambda: waits_for("transaction"), running)
        finally:
            sales.run(f"revoke pg_read_all_stats from {databases.CAPTURE}")
        connection.commit()
        sales.wait(lambda: sales.is_equal() and not WAITS.current(), running)
        running.stop()


def test_row_9_a_signal_ends_the_wait_for_a_transaction(sales: Sales) -> None:
    with opened(sales, SALE.format("a", 1)):
        process = sales.process()
        try:
            waiting = (
                "select count(*) from pg_locks l join pg_stat_activity a using (pid) where not l.granted "
                "and a.backend_type = 'walsender' and a.datname = current_database()"
            )
            sales.wait(lambda: sales.run(waiting) == [(1,)])
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            sales.wait(lambda: sales.run(waiting) == [(0,)])
            assert sales.slots() == 0
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("at", ["a start", "the snapshot"])
def test_row_9_a_locked_table_is_a_wait_as_well(
    sales: Sales, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.5)
    if at == "a start":
        with sales.capturing() as running:
            captured(sales, running)
    with opened(sales, "lock table public.sales in access exclusive mode") as connection:
        running = sales.start()
        line = sales.wait(lambda: waits_for("transaction"), running)
        assert f"pid {connection.info.backend_pid} of user postgres" in line
        connection.rollback()
        sales.wait(lambda: sales.phase() == "done" and not WAITS.current(), running)
        running.stop()


def test_row_9_a_prepared_transaction_is_named(
    stack: Embedded, made: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.5)
    made.put_back("empty")
    made.start()
    try:
        sales = made.sales(stack, databases.CAPTURE)
        owner = made.sales(stack)
        owner.run("begin", SALE.format("a", 1), "prepare transaction 'till''s'")
        running = sales.start()
        line: Any = sales.wait(lambda: waits_for("transaction"), running)
        assert (
            "the prepared transaction 'till''s' of user postgres in the database sales, prepared 20" in line
        )
        assert "rollback prepared 'till''s';" in line
        owner.run("commit prepared 'till''s'")
        sales.wait(lambda: len(sales.events()) == 1 and not WAITS.current(), running)
        running.stop()
    finally:
        made.stop()


def test_row_9_who_is_in_the_way_is_asked_on_one_connection(
    sales: Sales, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is kept while a call waits. Where none is to be had, that is reported; others' waits stay."""
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.3)
    looks: list[tuple[Any, ...]] = []
    look = watch.holders

    def looking(*arguments: Any) -> Any:
        looks.append(arguments)
        return look(*arguments)

    monkeypatch.setattr(watch, "holders", looking)
    sessions = "select count(*) from pg_stat_activity where usename = '{}'"
    WAITS.begin("transaction", "a chunk's", watch.CHUNK)
    with role(sales, "") as (name, limited), closing(Database(limited.settings)) as database:
        watcher = watch.Watcher(database, threading.Event())
        for expected in ("have it ended", "what blocks it cannot be looked up: connection"):
            with opened(sales, "lock table public.sales in access exclusive mode") as connection:
                call = threading.Thread(target=database.ask, args=("select count(*) from public.sales",))
                call.start()
                sales.wait(partial(is_reported, expected))
                sales.run(f"alter role {name} nologin")
                if not looks[2:]:
                    sales.wait(lambda: looks[2:])
                    assert "cannot be looked up" not in str(WAITS.current())
                connection.rollback()
            call.join()
            sales.wait(lambda: [wait.detail for wait in WAITS.current()] == ["a chunk's"])
            # The next call begins only after the watcher saw that none is under way.
            sales.wait(lambda: sales.run(sessions.format(name)) == [(1,)])
        watcher.close()
    assert len({id(connection) for connection, _ in looks}) == 1
    WAITS.end("transaction", watch.CHUNK)


@pytest.mark.soak
def test_row_9_a_commit_that_waits_for_a_standby_is_a_wait(stack: Embedded, made: Server) -> None:
    """From session to session, because what it did to the table cannot be seen before it is visible."""
    made.put_back("empty")
    made.start()
    try:
        sales = made.sales(stack)
        with sales.capturing() as running:
            captured(sales, running)
            sales.run("alter system set synchronous_standby_names = 'away'", "select pg_reload_conf()")
            sales.wait(lambda: sales.run("show synchronous_standby_names") == [("away",)])
            shop = threading.Thread(target=sales.run, args=(SALE.format("a", 1),))
            shop.start()
            sales.wait(lambda: "synchronous_standby_names = 'away'" in waits_for("transaction"), running)
            session = running.capture._session
            sales.wait(lambda: running.capture._session is not session, running)
            assert "synchronous_standby_names = 'away'" in waits_for("transaction")
            assert sales.events() == []
            sales.run("alter system reset synchronous_standby_names", "select pg_reload_conf()")
            shop.join()
            sales.wait(lambda: sales.is_equal() and not WAITS.current(), running)
    finally:
        made.stop()


def test_row_11_a_primary_key_that_includes_other_columns_is_taken(sales: Sales) -> None:
    sales.run(
        "alter table public.sales drop constraint sales_pkey",
        "alter table public.sales add primary key (sale_id) include (city)",
        SALE.format("a", 1),
    )
    with sales.capturing() as running:
        captured(sales, running)
        sales.wait(sales.is_equal, running)
    sales.run(
        "alter table public.sales drop constraint sales_pkey",
        "alter table public.sales add primary key (sale_id, city)",
    )
    assert "must be sale_id" in refused(sales, sales.start())
