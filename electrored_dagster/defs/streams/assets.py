"""Topics that the streaming workers write: partials, totals, public topics, late events and dead letters."""

from __future__ import annotations

import dagster as dg

from contracts import datasets
from contracts.datasets import INPUTS, PIPELINES, Dataset
from contracts.schemas import load
from contracts.topics import (
    DEAD_LETTERS,
    ENRICHED_SALES,
    LATE_EVENTS,
    PAYMENT_CONFIRMATIONS,
    SALES_EVENTS,
    TOP_SALES_BY_CITY,
    TOP_SALESMAN_BY_COUNTRY,
    Topic,
)
from electrored_dagster.asset_specs import avro_columns, described
from electrored_dagster.column_lineage import came_from

GROUP = "streams"
LOG = datasets.topic(SALES_EVENTS)
SOURCES = (datasets.SALES, datasets.CSV_INBOX, datasets.CSV_SALES, datasets.PAYMENT_SERVICE)


@dg.definitions
def assets() -> dg.Definitions:
    specs = [spec for pipeline in PIPELINES for spec in _internal(pipeline)]
    specs += [_public(topic) for topic in (TOP_SALES_BY_CITY, TOP_SALESMAN_BY_COUNTRY, ENRICHED_SALES)]
    specs += [
        _aside(
            LATE_EVENTS,
            [LOG],
            "Facts that came after the end of their window and its grace: counted, and listed here.",
        ),
        _aside(
            DEAD_LETTERS,
            [*SOURCES, LOG, datasets.topic(PAYMENT_CONFIRMATIONS)],
            "Values that were refused: where each was, and why it was not counted.",
        ),
    ]
    return dg.Definitions(assets=specs)


def _internal(pipeline: str) -> list[dg.AssetSpec]:
    partials, state = (datasets.internal(pipeline, role) for role in ("partials", "state"))
    return [
        described(
            partials,
            group=GROUP,
            kinds={"kafka"},
            internal=True,
            deps=[datasets.topic(source) for source in INPUTS[pipeline]],
            description="What each commit of combine adds to each group, in the active generation.",
            metadata=came_from(partials),
        ),
        described(
            state,
            group=GROUP,
            kinds={"kafka"},
            internal=True,
            deps=[partials],
            description="The newest total of every group, in the active generation.",
            metadata=came_from(state),
        ),
    ]


def _public(topic: Topic) -> dg.AssetSpec:
    return described(
        datasets.topic(topic),
        group=GROUP,
        kinds={"kafka"},
        deps=[datasets.internal(topic.name, "state")],
        description="The current truth of the active generation, for other programs; compacted.",
        metadata={
            "dagster/column_schema": avro_columns(load(topic.schema)),
            **came_from(datasets.topic(topic)),
        },
    )


def _aside(topic: Topic, deps: list[Dataset], description: str) -> dg.AssetSpec:
    return described(
        datasets.topic(topic),
        group=GROUP,
        kinds={"kafka"},
        deps=deps,
        description=description,
        metadata={
            "dagster/column_schema": avro_columns(load(topic.schema)),
            **came_from(datasets.topic(topic)),
        },
    )
