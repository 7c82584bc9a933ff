"""Where the columns of the views come from: the last hop, from the result tables to what people and the API read.

For itself, because it reads SQL: a worker's start does not wait for the parser.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from contracts import datasets
from contracts.datasets import Dataset
from contracts.views import AS_IS, COMPUTED, CONDITION, FILTERED, JOINED, WINDOW, Source, views
from observability.lineage.hops import BATCH, Column, Job, Kind, Made, Origin, Read
from streaming.engine.pipeline import Pipeline
from streaming.lineage import rows


def answered(pipeline: Pipeline, state: Dataset) -> Made:
    """The view of a pipeline straight from its state: where Dagster's graph shows no table between."""
    name = datasets.view_name(pipeline.name)
    between = rows(pipeline, state)
    columns = {
        column: tuple(
            replace(found, kind=_through(origin.kind, found.kind))
            for origin in origins
            if origin.dataset == between.dataset
            for found in between.columns.get(origin.column, ())
        )
        for column, origins in view(name).columns.items()
    }
    return Made(datasets.view(pipeline.name), columns)


def _through(later: Kind, earlier: Kind) -> Kind:
    """What two transformations after each other come to."""
    return earlier if later is Kind.IDENTITY else later


_USES = {
    AS_IS: Kind.IDENTITY,
    COMPUTED: Kind.TRANSFORMATION,
    WINDOW: Kind.WINDOW,
    CONDITION: Kind.CONDITIONAL,
    JOINED: Kind.JOIN,
    FILTERED: Kind.FILTER,
}


def shown() -> Job:
    """The result tables → the views that people and the API read, as the migrations define them."""
    made = tuple(view(name) for name in views())
    tables = {origin.dataset for one in made for origin in (*one.whole, *sum(one.columns.values(), ()))}
    read = tuple(Read(dataset) for dataset in sorted(tables))
    return Job("views", BATCH, "contracts/migrations/versions/0001_results.py", read, made)


def view(name: str) -> Made:
    """Where the columns of a view come from."""
    found = views()[name]

    def origins(sources: Iterable[Source]) -> tuple[Origin, ...]:
        return tuple(Origin(datasets.table(one.table), one.column, _USES[one.use]) for one in sources)

    columns = {column: origins(sources) for column, sources in found.columns.items()}
    return Made(datasets.table(name), columns, origins(found.rows), tuple(Column(one) for one in columns))
