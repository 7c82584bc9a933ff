"""The till writes the seed's sales when they are due, once, through outages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor
from sqlalchemy import make_url

from contracts.settings import SalesDbSettings
from simulators.sales import Change, Sale, history, live
from simulators.sales_writer import SalesWriter, run, utc_now
from tests.support.waiting import wait_until

START = datetime(2026, 11, 2, tzinfo=UTC)


@contextmanager
def cursor(url: str) -> Iterator[Cursor]:
    connection = psycopg2.connect(
        make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    )
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def rows(url: str) -> set[tuple[object, ...]]:
    with cursor(url) as sql:
        sql.execute(
            "SELECT sale_id, sold_at, city, salesman_id, quantity, amount, currency FROM public.sales"
        )
        return set(sql.fetchall())


def expected(sales: Iterator[Sale] | list[Sale]) -> set[tuple[object, ...]]:
    return {(s.sale_id, s.sold_at, s.city, s.salesman_id, s.quantity, s.amount, s.currency) for s in sales}


def after(changes: list[Change]) -> set[tuple[object, ...]]:
    table: dict[str, Sale] = {}
    for change in changes:
        if change.kind == "delete":
            del table[change.sale.sale_id]
        else:
            table[change.sale.sale_id] = change.sale
    return expected(list(table.values()))


@pytest.fixture
def url(sales_db: SalesDbSettings) -> str:
    return sales_db.sales_db_url.get_secret_value()


@pytest.fixture
def till(url: str) -> Iterator[SalesWriter]:
    till = SalesWriter(url, threading.Event(), patience_seconds=60)
    yield till
    till.close()


def test_a_history_is_loaded_fast_and_only_into_an_empty_table(till: SalesWriter, url: str) -> None:
    end = START + timedelta(days=90)
    began = time.thread_time()
    sales = list(history(1, START, end, 40_000))
    drawn = time.thread_time()
    assert till.load(sales) == 40_000
    # This thread's work, as a share: machines differ, and clients that other tests left have threads of their own.
    assert time.thread_time() - drawn < (drawn - began) * 0.75, "writing costs as much as drawing"
    assert rows(url) == expected(history(1, START, end, 40_000))
    assert till.load(history(2, START, end, 10)) == 0
    assert len(rows(url)) == 40_000


def test_the_table_is_what_the_changes_say_however_they_are_batched(till: SalesWriter, url: str) -> None:
    changes = list(islice(live(4, START, 1_000, 0.05, 0.03), 3_000))
    for begin in range(0, len(changes), 700):
        till.write(changes[begin : begin + 700])
    assert rows(url) == after(changes)


def test_a_write_that_is_repeated_changes_nothing(till: SalesWriter, url: str) -> None:
    changes = list(islice(live(5, START, 1_000, 0.05, 0.03), 1_000))
    till.write(changes)
    till.write(changes)
    assert rows(url) == after(changes)


def test_thousands_a_second_are_written_on_time(till: SalesWriter, url: str) -> None:
    begun = utc_now()
    changes = list(islice(live(6, begun, 2_000, 0.02, 0.01), 4_000))
    assert run(till, iter(changes), threading.Event()) == 4_000
    assert (utc_now() - begun).total_seconds() < 4, "due after 2 seconds"
    assert rows(url) == after(changes)


def test_nothing_is_written_before_it_is_due(till: SalesWriter, url: str) -> None:
    stop = threading.Event()
    changes = islice(live(7, utc_now() + timedelta(hours=1), 1, 0, 0), 1)
    threading.Timer(0.2, stop.set).start()
    assert run(till, changes, stop) == 0
    assert rows(url) == set()


def test_a_broken_connection_loses_no_sale_and_doubles_none(till: SalesWriter, url: str) -> None:
    changes = list(islice(live(8, utc_now(), 500, 0.05, 0.03), 1_000))
    ended = threading.Event()

    def break_connections() -> None:
        with cursor(url) as sql:
            while not ended.wait(0.3):
                sql.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'electrored-simulator'"
                )

    breaker = threading.Thread(target=break_connections)
    breaker.start()
    try:
        run(till, iter(changes), threading.Event())
    finally:
        ended.set()
        breaker.join()
    assert rows(url) == after(changes)


def test_a_database_that_stays_away_is_an_error_after_the_bound(url: str) -> None:
    away = make_url(url).set(port=1).render_as_string(hide_password=False)
    before = time.perf_counter()
    with pytest.raises(psycopg2.OperationalError):
        SalesWriter(away, threading.Event(), patience_seconds=1).write([])
    assert 0.5 < time.perf_counter() - before < 10


def simulator(url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulators", *arguments],
        env=os.environ | {"ELECTRORED_SALES_DB_URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_process_sells_until_sigterm_and_ends_with_0(url: str) -> None:
    with simulator(url, "sales", "--rate", "100", "--seed", "1") as process:

        def has_sold() -> bool:
            assert process.poll() is None
            return len(rows(url)) >= 20

        wait_until(has_sold, 60, "20 sales")
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "stopped after" in log


def test_the_process_loads_a_history_that_ends_where_it_says(url: str) -> None:
    arguments = ("history", "--days", "30", "--rows", "900", "--seed", "3", "--end", "2026-12-01T00:00:00")
    with simulator(url, *arguments) as process:
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    end = datetime(2026, 12, 1, tzinfo=UTC)
    assert rows(url) == expected(history(3, end - timedelta(days=30), end, 900))
