"""What both answers have to be: `GROUP BY` over the sales table."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from tests.e2e.conftest import Platform, until

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
    """Until the platform says that its results hold everything recorded up to `at`."""

    return until(lambda: (platform.watermark() or at) > at, seconds, f"a watermark past {at}")


def assert_exact(platform: Platform) -> int:
    """Compare everything, once, as soon as the watermark promises that everything is in; gives the number of sales."""
    wait_for_watermark(platform, datetime.now(UTC))
    sales, results = "ELECTRORED_SALES_DB_URL", "ELECTRORED_RESULTS_DB_URL"
    expected = totals(platform, sales, BY_CITY)
    assert totals(platform, results, CITY_RESULTS) == expected
    assert totals(platform, results, SALESMAN_RESULTS) == totals(platform, sales, BY_SALESMAN)
    return sum(count for _, count in expected.values())
