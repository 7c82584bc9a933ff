"""Which sales are paid: two queries of the join, each on one snapshot of the results database."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row

from api.payment_schemas import PaymentsSummary, Sale
from api.queries import ENRICHED
from api.versions import Fresh, Version
from contracts.calendar import Window

_LATEST = (
    "SELECT sold_at FROM joined_sales WHERE generation = %(generation)s AND sales_count > 0 "
    "AND sold_at < %(tomorrow)s ORDER BY sold_at DESC LIMIT 1"
)
_FUTURE = (
    "SELECT count(*) FROM joined_sales WHERE generation = %(generation)s AND sales_count > 0 "
    "AND sold_at >= %(tomorrow)s"
)
# The table and not the view, which would read the watermark once per pending sale and sort a day's rows instead of
# hashing them: a quarter of the time for 100,000 sales. UNPAID is derived as in the view. Reversed sales are hidden,
# but count for `updated_at`.
_SUMMARY = (
    "SELECT CASE WHEN is_unpaid THEN 'UNPAID' ELSE status END AS status, country, city, currency, "
    "sales_count, negative_groups, CAST(amount AS text) AS amount, updated_at FROM ("
    "SELECT status, country, city, currency, "
    "status = 'PENDING' AND CAST(%(watermark)s AS timestamptz) >= sold_at + interval '7 days' AS is_unpaid, "
    "count(*) FILTER (WHERE sales_count > 0) AS sales_count, count(*) FILTER (WHERE is_negative) AS negative_groups, "
    "sum(amount) FILTER (WHERE sales_count > 0) AS amount, max(updated_at) AS updated_at "
    "FROM joined_sales WHERE generation = %(generation)s AND sold_at >= %(start)s AND sold_at < %(end)s "
    "GROUP BY 1, 2, 3, 4, 5) AS counted ORDER BY 1, 2, 3, 4"
)
_SALE = (
    "SELECT source, status, sold_at, country, city, salesman_id, salesman_name, product, quantity, "
    "CAST(amount AS text) AS amount, currency, payments, ambiguous, updated_at, "
    "(SELECT sales_count FROM joined_sales t WHERE t.generation = e.generation AND t.sale_id = e.sale_id "
    "AND t.source = e.source) AS sales_count FROM enriched_sales e WHERE sale_id = %(sale_id)s ORDER BY source"
)


class NoSuchSale(Exception):
    """No source has the sale, or every one reversed it."""


@dataclass(frozen=True)
class Summary:
    """How the sales of a civil day stand, by status, country, city and currency; None: the latest that has begun and
    has any.
    """

    day: date | None
    pipeline: str = ENRICHED

    def answer(self, connection: Connection, fresh: Fresh) -> tuple[Version, bytes]:
        window = self._window(connection, fresh)
        groups: list[Row[Any]] = []
        if window is not None:
            within = {"generation": fresh.generation, "start": window.start, "end": window.end}
            within["watermark"] = fresh.watermark
            groups = list(connection.exec_driver_sql(_SUMMARY, within))
        rows = [row for row in groups if row.sales_count]
        updated_at = max((row.updated_at for row in groups), default=None)
        future = connection.exec_driver_sql(_FUTURE, _ahead(fresh)).scalar_one()
        shown = PaymentsSummary.model_validate(
            {
                "window": {
                    "start": window and window.start,
                    "end": window and window.end,
                    "time_zone": fresh.calendar.time_zone,
                },
                "by_status": _by_status(rows),
                "data": rows,
                "negative_groups": sum(row.negative_groups for row in groups),
                "freshness": {
                    "watermark": fresh.watermark,
                    "updated_at": updated_at,
                    "future_sales": future,
                },
                "generation": fresh.generation,
            }
        )
        return fresh.version, shown.model_dump_json().encode()

    def _window(self, connection: Connection, fresh: Fresh) -> Window | None:
        if self.day is not None:
            return fresh.calendar.window_of(self.day)
        latest = connection.exec_driver_sql(_LATEST, _ahead(fresh)).scalar()
        return None if latest is None else fresh.calendar.window_at(latest)


@dataclass(frozen=True)
class OneSale:
    """A sale with its payments and status; of each source, if several have it."""

    sale_id: str
    pipeline: str = ENRICHED

    def answer(self, connection: Connection, fresh: Fresh) -> tuple[Version, bytes]:
        """Raises NoSuchSale."""
        rows = list(connection.exec_driver_sql(_SALE, {"sale_id": self.sale_id}))
        if not rows:
            raise NoSuchSale(self.sale_id)
        shown = Sale.model_validate(
            {
                "sale_id": self.sale_id,
                "sales": rows,
                # Every source's row has all payments of the sale_id.
                "payments": rows[0].payments,
                "ambiguous": rows[0].ambiguous,
                "freshness": {
                    "watermark": fresh.watermark,
                    "updated_at": max(row.updated_at for row in rows),
                },
                "generation": fresh.generation,
            }
        )
        return fresh.version, shown.model_dump_json().encode()


def _ahead(fresh: Fresh) -> dict[str, Any]:
    return {"generation": fresh.generation, "tomorrow": fresh.current.end}


def _by_status(rows: list[Row[Any]]) -> list[dict[str, Any]]:
    """The rows added up over countries and cities; never over currencies."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    amounts: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in rows:
        counts[row.status, row.currency] += row.sales_count
        amounts[row.status, row.currency] += Decimal(row.amount)
    return [
        {"status": status, "currency": currency, "sales_count": count, "amount": f"{amount:f}"}
        for (status, currency), count in sorted(counts.items())
        for amount in [amounts[status, currency]]
    ]
