"""Row 1: a server that was put back to an earlier state is another one, whatever it is called."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sources.postgres.lsn import lsn_number
from stack.embedded import Embedded
from tests.support.capture import SALE, Running, Sales, captured, refused
from tests.support.postgres_server import Server

PUT_BACK = "was put back to an earlier state"


@pytest.fixture
def server(made: Server) -> Iterator[Server]:
    made.put_back("empty")
    made.start()
    yield made
    made.stop()


def sell(sales: Sales, *names: str) -> None:
    sales.run(*(SALE.format(name, 1) for name in names))


def until_equal(sales: Sales, running: Running) -> None:
    sales.wait(lambda: sales.is_equal() and sales.phase() == "done", running)


def reached(sales: Sales) -> int:
    position = sales.position()
    return lsn_number(position.detail["lsn"])


def write_past(sales: Sales, lsn: int) -> None:
    """Other tables alone, until the server has WAL beyond."""
    sales.run("create table if not exists other (t text)")
    while lsn_number(sales.run("select pg_current_wal_flush_lsn()")[0][0]) <= lsn:
        sales.run("insert into other select repeat('x', 1000) from generate_series(1, 100)")


def copied_then_sold(server: Server, sales: Sales) -> int:
    """Two sales, a copy, more sales, all captured; then the copy is put back. Gives how far capture was."""
    with sales.capturing() as running:
        sell(sales, "a", "b")
        until_equal(sales, running)
    server.stop()
    server.copy()
    server.start()
    with sales.capturing() as running:
        sell(sales, *(f"lost-{n}" for n in range(20)))
        until_equal(sales, running)
        write_past(sales, reached(sales))
        frontier = sales.frontier()
        sales.wait(lambda: sales.frontier() > frontier, running)
    server.stop()
    at = reached(sales)
    server.put_back()
    server.start()
    return at


@pytest.mark.parametrize(
    "then",
    [
        "not reached",
        "sales, then past it",
        pytest.param("past it, then sales", marks=pytest.mark.soak),
        pytest.param("the same sales, then past it", marks=pytest.mark.soak),
    ],
)
def test_row_1_a_server_that_was_put_back_is_refused(stack: Embedded, server: Server, then: str) -> None:
    sales = server.sales(stack)
    at = copied_then_sold(server, sales)
    known = len(sales.events())
    if then == "sales, then past it":
        sell(sales, "new")
        write_past(sales, at)
    elif then == "past it, then sales":
        write_past(sales, at)
        sell(sales, "new")
    elif then == "the same sales, then past it":
        sell(sales, *(f"lost-{n}" for n in range(20)))
        write_past(sales, at)
    # A restart does not close the hole.
    for _ in range(2):
        assert PUT_BACK in refused(sales, sales.start())
    write_past(sales, at)
    assert PUT_BACK in refused(sales, sales.start())
    assert len(sales.events()) == known


def test_row_1_a_server_that_is_put_back_while_capture_runs_is_refused(
    stack: Embedded, server: Server
) -> None:
    """The same process, whose next session it is."""
    sales = server.sales(stack)
    running = sales.start()
    sell(sales, "a")
    until_equal(sales, running)
    server.stop()
    server.copy()
    server.start()
    sell(sales, "b")
    until_equal(sales, running)
    server.stop()
    server.put_back()
    server.start()
    assert PUT_BACK in refused(sales, running)


def test_row_1_a_copy_that_lacks_nothing_is_gone_on_with(stack: Embedded, server: Server) -> None:
    """Nothing of the table was written after the copy, and nothing is below the position instead."""
    sales = server.sales(stack)
    with sales.capturing() as running:
        sell(sales, "a")
        until_equal(sales, running)
    server.stop()
    server.copy()
    server.start()
    with sales.capturing() as running:
        write_past(sales, reached(sales) + 1_000_000)
        wanted = reached(sales) + 1_000_000
        sales.wait(lambda: reached(sales) > wanted, running)
    at = reached(sales)
    server.stop()
    server.put_back()
    server.start()
    assert PUT_BACK in refused(sales, sales.start())
    write_past(sales, at)
    sell(sales, "b")
    with sales.capturing() as running:
        until_equal(sales, running)
    assert len(sales.events()) == 2


@pytest.mark.soak
def test_row_1_a_crash_is_no_other_history(stack: Embedded, server: Server) -> None:
    """The slot is back at what was persisted, far behind the position; also twice, and while capture runs."""
    sales = server.sales(stack)
    running = sales.start()
    captured(sales, running)
    for crash in range(3):
        sell(sales, f"a{crash}", f"b{crash}")
        until_equal(sales, running)
        if crash == 2:
            running.stop()
        server.kill()
        server.start()
        query = f"select confirmed_flush_lsn from pg_replication_slots where slot_name = '{sales.settings.sales_slot}'"
        if crash == 2:
            assert lsn_number(sales.run(query)[0][0]) < reached(sales)
            running = sales.start()
    sell(sales, "c")
    until_equal(sales, running)
    running.stop()
    assert len(sales.events()) == 7
    assert sales.seqs_are_unique()


def test_row_1_a_slot_of_the_same_history_that_stands_further_back_is_gone_on_with(
    stack: Embedded, server: Server
) -> None:
    sales = server.sales(stack)
    slot = sales.settings.sales_slot
    with sales.capturing() as running:
        sell(sales, "a")
        until_equal(sales, running)
    sales.run(f"select pg_copy_logical_replication_slot('{slot}', 'back')")
    with sales.capturing() as running:
        sell(sales, "b")
        until_equal(sales, running)
    sales.run(
        f"select pg_drop_replication_slot('{slot}')",
        f"select pg_copy_logical_replication_slot('back', '{slot}')",
    )
    with sales.capturing() as running:
        sell(sales, "c")
        until_equal(sales, running)
    assert len(sales.events()) == 3
    sell(sales, "d")
    sales.run(f"select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")
    assert "beyond the stored position" in refused(sales, sales.start())
