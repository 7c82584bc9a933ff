"""Which sales are paid? The sale of each source beside its payments, joined by sale_id in either order of arrival."""

from __future__ import annotations

from dataclasses import replace

from contracts.topics import ENRICHED_SALES, PAYMENT_CONFIRMATIONS, SALES_EVENTS
from streaming.engine.aggregates import NestedGroups, text, whole
from streaming.engine.pipeline import Input, Pipeline
from streaming.pipelines import payment_confirmations, sale_events
from streaming.pipelines.enriched_sale import public, rows

# By currency too: where a correction changed it, the reversal of the old and the new sale never meet in one sum.
SALES = NestedGroups(
    "sales",
    by=(text("source"), text("currency")),
    count="sales_count",
    sums=("quantity", "amount"),
    order=(whole("seq"),),
    latest=(
        whole("sold_at"),
        text("country"),
        text("city"),
        text("salesman_id"),
        text("salesman_name"),
        text("product"),
    ),
)
# A payment that is confirmed twice is one payment, with the values of the newest confirmation.
PAYMENTS = NestedGroups(
    "payments",
    by=(text("payment_id"),),
    order=(whole("confirmed_at"), whole("seq"), text("source")),
    latest=(whole("amount"), text("currency"), text("status")),
)
# The columns that decide a sale's status, and those shown of each payment; see enriched_sale.py.
DECIDING = (
    *("sales.amount", "sales.currency", "sales.sales_count"),
    *("payments.amount", "payments.currency", "payments.status"),
)
PAYMENT_COLUMNS = ("payment_id", "amount", "currency", "status", "confirmed_at")

V1 = Pipeline(
    name="enriched-sales",
    version=1,
    inputs=(
        Input(SALES_EVENTS, sale_events.SOURCES, sale_events.EVENTS, sale_events.CHECKS_V1, (SALES,)),
        Input(
            PAYMENT_CONFIRMATIONS,
            payment_confirmations.SOURCES,
            payment_confirmations.EVENTS,
            payment_confirmations.CHECKS_V1,
            (PAYMENTS,),
        ),
    ),
    output=ENRICHED_SALES,
    table="joined_sales",
    group_by=("sale_id",),
    calendar=None,
    rows=rows,
    public=public,
    made_of={
        "status": DECIDING,
        "sales.status": DECIDING,
        "payments": tuple(
            f"payments.{field.name}" for field in PAYMENTS.item if field.name in PAYMENT_COLUMNS
        ),
        "ambiguous": ("sales.sales_count",),
    },
)
# Joins by ids in their normal form.
V2 = replace(
    V1,
    version=2,
    inputs=tuple(
        replace(source_input, checks=events.CHECKS, normal=events.NORMAL)
        for source_input, events in zip(V1.inputs, (sale_events, payment_confirmations), strict=True)
    ),
)
VERSIONS = (V1, V2)
