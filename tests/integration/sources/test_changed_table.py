"""Capture and a table that is changed below it: what the stream does not show stops it before the next change."""

from __future__ import annotations

import json

from stack import databases
from tests.support.capture import SALE, Sales, captured, refused

SETTING = "ELECTRORED_SALES_PUBLICATION_ACCEPTED="


def test_row_2_a_rewrite_and_a_change_behind_it(sales: Sales) -> None:
    """In one transaction, so that no check of every second sees it: nothing of it is taken, at no start."""
    running = sales.start()
    captured(sales, running)
    sales.run(SALE.format("a", 1000))
    sales.wait(sales.events, running)
    rewrite = "alter table public.sales alter column amount type numeric(18, 4) using amount / 100"
    sales.run(f"begin; {rewrite}; update public.sales set city = 'Bonn'; commit")
    line = refused(sales, running)
    assert "the values of amount (numeric(18,4)) were computed anew" in line
    again = refused(sales, sales.start())
    assert line.startswith(again)
    assert len(sales.events()) == 1
    # A person may override it.
    sales.settings = sales.settings.model_copy(
        update={"sales_publication_accepted": again.partition(SETTING)[2]}
    )
    with sales.capturing() as running:
        sales.wait(lambda: len(sales.events()) == 3, running)
    sales.settings = sales.settings.model_copy(update={"sales_publication_accepted": ""})
    with sales.capturing() as running:
        sales.run("vacuum full public.sales", SALE.format("b", 1))
        sales.wait(lambda: len(sales.events()) == 4, running)


def test_row_2_a_column_that_was_made_anew_and_a_delete(sales: Sales) -> None:
    running = sales.start()
    captured(sales, running)
    sales.run(SALE.format("a", 1))
    sales.wait(sales.events, running)
    sales.run(
        "begin; alter table public.sales drop city; alter table public.sales add city text not null default 'X'; "
        "delete from public.sales; commit"
    )
    assert "city is another column than it was" in refused(sales, running)
    assert len(sales.events()) == 1


def test_row_2_names_that_were_exchanged_and_changed_back_while_capture_was_away(sales: Sales) -> None:
    with sales.capturing() as running:
        captured(sales, running)
        sales.run(SALE.format("a", 1))
        sales.wait(sales.events, running)
    swap = (
        "begin; alter table public.sales rename city to c; alter table public.sales rename country to city; "
        "alter table public.sales rename c to country; commit"
    )
    sales.run(swap, "delete from public.sales", swap)
    assert "had each other's names" in refused(sales, sales.start())
    assert len(sales.events()) == 1


def test_row_3_a_policy_that_hides_rows_from_capture(sales: Sales) -> None:
    """Refused at the first start, before anything is made, and when it comes while capture runs."""
    sales.run(SALE.format("a", 1), SALE.format("b", 1))
    sales.run(
        "alter table public.sales enable row level security",
        f"create policy a_only on public.sales to {databases.CAPTURE} using (sale_id = 'a')",
    )
    bound = sales.as_capture_role()
    line = refused(sales, bound.start())
    assert f'alter role "{databases.CAPTURE}" bypassrls;' in line
    assert sales.slots() == 0
    assert sales.events() == []
    sales.run("alter table public.sales disable row level security")
    running = bound.start()
    captured(sales, running)
    assert len(sales.events()) == 2
    sales.run("alter table public.sales enable row level security")
    assert "bypassrls" in refused(sales, running)
    sales.run("alter table public.sales disable row level security", SALE.format("c", 1))
    with bound.capturing() as running:
        sales.wait(sales.is_equal, running)


def test_row_4_a_table_that_inherits(sales: Sales) -> None:
    """Refused at a start and while running; the command in the refusal brings its rows into the log."""
    running = sales.start()
    captured(sales, running)
    sales.run(
        "create table public.sales_2026 () inherits (public.sales)",
        SALE.format("a", 1).replace("public.sales ", "public.sales_2026 "),
    )
    line = refused(sales, running)
    assert refused(sales, sales.start()) == line
    cure = line.partition("For each: ")[2].partition(" (an empty")[0]
    sales.run(*cure.removesuffix(";").split("; "))
    with sales.capturing() as running:
        sales.wait(lambda: len(sales.events()) == 1, running)
        assert sales.is_equal()


def test_row_6_a_quantity_of_any_integer_type(sales: Sales) -> None:
    """While it runs, in the stream and at starts; what does not fit is a dead letter that names the value."""
    with sales.capturing() as running:
        captured(sales, running)
        sales.run(
            "alter table public.sales alter quantity type smallint",
            SALE.format("small", 1),
            "alter table public.sales alter quantity type bigint",
            SALE.format("big", 1),
            SALE.format("huge", 1).replace("2, 1,", "3000000000, 1,"),
        )
        ((_, letter),) = sales.wait(lambda: sales.log(sales.topics.dead_letters), running)
        assert (
            letter["reason"] == "sale: quantity is 3000000000, which is out of the range of a 32-bit integer"
        )
        assert json.loads(letter["value"])["quantity"] == 3_000_000_000
        sales.run("delete from public.sales where sale_id = 'huge'")
        sales.run("alter table public.sales alter quantity type integer", SALE.format("back", 1))
        sales.wait(sales.is_equal, running)
    with sales.capturing() as running:
        sales.run(SALE.format("after", 1))
        sales.wait(sales.is_equal, running)


def test_row_6_a_snapshot_of_another_integer_type(sales: Sales) -> None:
    sales.run("alter table public.sales alter quantity type bigint", SALE.format("a", 1))
    with sales.capturing() as running:
        captured(sales, running)
    assert sales.is_equal()
    assert [event["quantity"] for event in sales.events()] == [2]


def test_row_6_a_type_that_cannot_be_read_stops_capture_at_the_alter(sales: Sales) -> None:
    running = sales.start()
    captured(sales, running)
    sales.run("alter table public.sales alter quantity type text")
    assert "quantity has the type text" in refused(sales, running)
    sales.run("alter table public.sales alter column quantity type integer using quantity::integer")
    line = refused(sales, sales.start())
    sales.settings = sales.settings.model_copy(
        update={"sales_publication_accepted": line.partition(SETTING)[2]}
    )
    with sales.capturing() as running:
        sales.run(SALE.format("a", 1))
        sales.wait(sales.is_equal, running)
