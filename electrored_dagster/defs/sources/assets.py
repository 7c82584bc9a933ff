"""The outside world and the log that it is captured into."""

from __future__ import annotations

import dagster as dg

from contracts import datasets
from contracts.schemas import load
from contracts.topics import PAYMENT_CONFIRMATIONS, SALES_EVENTS, SOURCE_POSITIONS
from electrored_dagster.graph import avro_columns, external

GROUP = "sources"


@dg.definitions
def assets() -> dg.Definitions:
    return dg.Definitions(
        assets=[
            external(
                datasets.SALES,
                group=GROUP,
                kinds={"postgres", "table"},
                description="The sales table that the company's tools write; change capture reads its log.",
            ),
            external(
                datasets.topic(SALES_EVENTS),
                group=GROUP,
                kinds={"kafka"},
                deps=[datasets.SALES],
                description="Every sale and every reversal of one, for ever: the system of record.",
                metadata={"dagster/column_schema": avro_columns(load(SALES_EVENTS.schema))},
            ),
            external(
                datasets.topic(PAYMENT_CONFIRMATIONS),
                group=GROUP,
                kinds={"kafka"},
                description="What the payment service said about each payment, for ever.",
                metadata={"dagster/column_schema": avro_columns(load(PAYMENT_CONFIRMATIONS.schema))},
            ),
            external(
                datasets.topic(SOURCE_POSITIONS),
                group=GROUP,
                kinds={"kafka"},
                deps=[datasets.SALES],
                description="Where each source stands, written with its events, and its frontier.",
                metadata={"dagster/column_schema": avro_columns(load(SOURCE_POSITIONS.schema))},
            ),
        ]
    )
