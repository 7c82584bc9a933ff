"""The outside world and the log that it is captured into."""

from __future__ import annotations

import dagster as dg

from contracts import datasets
from contracts.schemas import load
from contracts.topics import SALES_EVENTS, SOURCE_POSITIONS
from electrored_dagster.asset_specs import avro_columns, described
from electrored_dagster.column_lineage import came_from

GROUP = "sources"


@dg.definitions
def assets() -> dg.Definitions:
    return dg.Definitions(
        assets=[
            described(
                datasets.SALES,
                group=GROUP,
                kinds={"postgres", "table"},
                description="The sales table that the company's tools write; change capture reads its log.",
            ),
            described(
                datasets.CSV_INBOX,
                group=GROUP,
                kinds={"csv", "file"},
                description="The folder that files of sales are put in; a sensor polls it.",
            ),
            described(
                datasets.PAYMENT_SERVICE,
                group=GROUP,
                kinds={"soap"},
                description="The partner's service that confirms payments; polled every five minutes.",
            ),
            described(
                datasets.topic(SALES_EVENTS),
                group=GROUP,
                kinds={"kafka"},
                deps=[datasets.SALES, datasets.CSV_INBOX, datasets.CSV_SALES],
                description="Every sale and every reversal of one, for ever: the system of record.",
                metadata={
                    "dagster/column_schema": avro_columns(load(SALES_EVENTS.schema)),
                    **came_from(datasets.topic(SALES_EVENTS)),
                },
            ),
            described(
                datasets.topic(SOURCE_POSITIONS),
                group=GROUP,
                kinds={"kafka"},
                deps=[
                    datasets.SALES,
                    datasets.CSV_INBOX,
                    datasets.CSV_SALES,
                    datasets.PAYMENT_SERVICE,
                ],
                description="The position of each source, written with its events, and its frontier.",
                metadata={"dagster/column_schema": avro_columns(load(SOURCE_POSITIONS.schema))},
            ),
        ]
    )
