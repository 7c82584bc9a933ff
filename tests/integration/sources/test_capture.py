"""Change capture: what is in the table is in the log, exactly once."""

from __future__ import annotations


from tests.integration.sources.conftest import Sales


def test_the_log_adds_up_to_the_table(sales: Sales) -> None:
    sales.run("insert into public.sales values ('a', now(), 'Berlin', 'DE', 's1', 'Anna', 'TV', 2, 19.99, 'EUR')")
    with sales.capturing() as running:
        sales.wait(lambda: sales.position() and sales.position().frontier.year > 1970, running)
        sales.run("insert into public.sales select 'b' || n, now(), 'Berlin', 'DE', 's1', 'Anna', 'TV', 2, n, 'EUR' from generate_series(1, 100) n")
        sales.run("update public.sales set amount = amount + 1 where sale_id < 'b5'")
        sales.run("delete from public.sales where sale_id like 'b9%'")
        sales.wait(sales.is_equal, running)
    assert sales.seqs_are_unique()
