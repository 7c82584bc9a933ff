"""The columns of a sale, as the sales table and the files have them, in their order in code."""

from __future__ import annotations

SALE_COLUMNS = (
    "sale_id", "sold_at", "city", "country", "salesman_id", "salesman_name", "product",
    "quantity", "amount", "currency",
)  # fmt: skip
