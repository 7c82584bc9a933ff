"""What the answers have to be: `GROUP BY` over the sales table, or a plain recomputation of all three sources."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from tests.e2e.command import Platform, until
from tests.e2e.payments import Service

RESULTS = "ELECTRORED_RESULTS_DB_URL"
COLUMNS = ("sale_id", "sold_at", "city", "country", "salesman_id", "salesman_name", "product", "quantity",
           "amount", "currency", "operation")  # fmt: skip
WINDOW_SECONDS = 30 * 86_400

Totals = dict[tuple[object, ...], tuple[Decimal, int]]

BY_CITY = """
    select date_trunc('day', sold_at at time zone 'utc') at time zone 'utc', country, city, currency::text,
           sum(amount), count(*)
    from public.sales group by 1, 2, 3, 4
"""
BY_SALESMAN = """
    select to_timestamp(floor(extract(epoch from sold_at) / (30 * 86400)) * 30 * 86400), country, salesman_id,
           currency::text, sum(amount), count(*)
    from public.sales group by 1, 2, 3, 4
"""
CITY_RESULTS = "select window_start, country, city, currency, total, sales_count from top_sales_by_city"
SALESMAN_RESULTS = (
    "select window_start, country, salesman_id, currency, total, sales_count from top_salesman_by_country"
)


def totals(platform: Platform, variable: str, query: str) -> Totals:
    connection = platform.connect(variable)
    try:
        cursor = connection.cursor()
        cursor.execute(query)
        return {tuple(row[:4]): (row[4], row[5]) for row in cursor.fetchall()}
    finally:
        connection.close()


def wait_for_watermark(platform: Platform, at: datetime, seconds: float = 90) -> float:
    """Until the platform reports results that hold everything recorded up to `at`."""
    return until(lambda: (platform.watermark() or at) > at, seconds, f"a watermark past {at}")


def assert_exact(platform: Platform) -> int:
    """Compare everything, once, as soon as the watermark promises that everything is in; gives the number of sales."""
    wait_for_watermark(platform, datetime.now(UTC))
    sales = "ELECTRORED_SALES_DB_URL"
    expected = totals(platform, sales, BY_CITY)
    assert totals(platform, RESULTS, CITY_RESULTS) == expected
    assert totals(platform, RESULTS, SALESMAN_RESULTS) == totals(platform, sales, BY_SALESMAN)
    return sum(count for _, count in expected.values())


@dataclass(frozen=True)
class Sale:
    """A sale as a table or a file has it."""

    sale_id: str
    sold_at: datetime
    city: str
    country: str
    salesman_id: str
    salesman_name: str
    product: str
    quantity: int
    amount: Decimal
    currency: str


def results(platform: Platform, query: str) -> list[tuple[Any, ...]]:
    """Rows of the results database."""
    with closing(platform.connect(RESULTS)) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return cursor.fetchall()


def _sale(cells: list[str]) -> Sale | None:
    """A row's sale; None if it is invalid."""
    sale_id, sold_at, city, country, salesman_id, name, product, quantity, amount, currency = cells
    try:
        at = datetime.fromisoformat(sold_at)
        made = Sale(
            sale_id, at, city, country, salesman_id, name, product, int(quantity), Decimal(amount), currency
        )
    except (ValueError, InvalidOperation):
        return None
    is_sound = all((made.sale_id, made.city, made.country, made.salesman_id)) and len(currency) == 3
    return made if is_sound else None


def replay(files: list[str]) -> dict[str, Sale]:
    """What counts of each id after the files, in the order in which they came."""
    said: dict[str, Sale] = {}
    for text in files:
        for cells in list(csv.reader(text.splitlines()))[1:]:
            if len(cells) != len(COLUMNS):
                continue
            if cells[-1] == "REVERSAL":
                said.pop(cells[0], None)
            elif cells[-1] in ("", "SALE") and (sale := _sale(cells[:-1])) is not None:
                said[sale.sale_id] = sale
    return said


def sold(platform: Platform) -> dict[str, Sale]:
    """The sales table."""
    with closing(platform.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"select {', '.join(COLUMNS[:-1])} from public.sales")
        return {row[0]: Sale(*row) for row in cursor.fetchall()}


def expected_totals(sales: list[Sale]) -> tuple[Totals, Totals]:
    """By city and day, by salesman and 30 days."""
    cities: dict[tuple[object, ...], list[Decimal]] = defaultdict(list)
    salesmen: dict[tuple[object, ...], list[Decimal]] = defaultdict(list)
    for sale in sales:
        day = sale.sold_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        window = datetime.fromtimestamp(sale.sold_at.timestamp() // WINDOW_SECONDS * WINDOW_SECONDS, UTC)
        cities[day, sale.country, sale.city, sale.currency].append(sale.amount)
        salesmen[window, sale.country, sale.salesman_id, sale.currency].append(sale.amount)
    by_city = {group: (sum(amounts, Decimal(0)), len(amounts)) for group, amounts in cities.items()}
    by_salesman = {group: (sum(amounts, Decimal(0)), len(amounts)) for group, amounts in salesmen.items()}
    return by_city, by_salesman


Payment = tuple[Decimal, str, str, datetime]
# By (sale_id, source): the sale, its status, its payments, whether another source has it too.
Joined = dict[tuple[str, str], tuple[Sale, str, dict[str, Payment], bool]]


def confirmed(service: Service) -> dict[str, dict[str, Payment]]:
    """By sale and payment, the service's last confirmation."""
    found: dict[str, dict[str, Payment]] = defaultdict(dict)
    for sale_id, payment_id, amount, currency, status, at in service.ask(
        "select sale_id, payment_id, amount, currency, status, confirmed_at from confirmations "
        "order by confirmed_at, number"
    ):
        found[sale_id][payment_id] = (Decimal(amount), currency, status, datetime.fromisoformat(at))
    return found


def _status(sale: Sale, payments: Iterable[Payment]) -> str:
    kept = [(amount, currency) for amount, currency, status, _ in payments if status == "CONFIRMED"]
    if not payments:
        return "PENDING"
    if not kept:
        return "REFUNDED"
    same = {currency for _, currency in kept} == {sale.currency}
    return "CONFIRMED" if same and sum(amount for amount, _ in kept) == sale.amount else "AMOUNT_MISMATCH"


def expected_join(
    table: dict[str, Sale], files: dict[str, Sale], payments: dict[str, dict[str, Payment]]
) -> Joined:
    """Each sale with its payments; an id that two sources have is joined with none."""
    joined: Joined = {}
    for source, sales in (("postgres", table), ("csv", files)):
        for sale_id, sale in sales.items():
            ambiguous = sale_id in table and sale_id in files
            paid = payments.get(sale_id, {})
            status = "PENDING" if ambiguous else _status(sale, paid.values())
            joined[sale_id, source] = (sale, status, paid, ambiguous)
    return joined


def found_join(platform: Platform) -> Joined:
    """What the view of sales and their payments shows."""
    joined: Joined = {}
    rows = results(
        platform,
        f"select {', '.join(COLUMNS[:-1])}, source, status, payments, ambiguous from enriched_sales",
    )
    for *sale, source, status, payments, ambiguous in rows:
        paid = {
            one["payment_id"]: (
                Decimal(one["amount"]),
                one["currency"],
                one["status"],
                datetime.fromisoformat(one["confirmed_at"]),
            )
            for one in payments
        }
        assert len(paid) == len(payments), f"a payment is there twice: {payments}"
        joined[sale[0], source] = (Sale(*sale), status, paid, ambiguous)
    return joined


def assert_same(found: dict[Any, Any], expected: dict[Any, Any], what: str) -> None:
    """As `==`, with the first differences as the message: whole, they are thousands of rows."""
    wrong = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
    shown = [f"{key}: found {found.get(key)}, expected {expected.get(key)}" for key in wrong[:5]]
    assert not wrong, "\n".join([f"{what}: {len(wrong)} of {len(expected)} differ", *shown])
