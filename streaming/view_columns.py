"""Column lineage of the views: the last hop, from the result tables to what people and the API read.

Its own module because it parses SQL: a worker does not import the parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from contracts import datasets
from contracts.datasets import Dataset
from contracts.tables import metadata
from contracts.views import (
    AGGREGATED,
    AS_IS,
    COMPUTED,
    CONDITION,
    FILTERED,
    GROUPED,
    JOINED,
    SORTED,
    WINDOW,
    Source,
    views,
)
from lineage.model import (
    BATCH,
    Column,
    InputDataset,
    InputField,
    Job,
    OutputDataset,
    Transformation,
    table_schema,
)
from streaming.engine.pipeline import Pipeline
from streaming.lineage import rows

_USES = {
    AS_IS: Transformation.IDENTITY,
    COMPUTED: Transformation.TRANSFORMATION,
    AGGREGATED: Transformation.AGGREGATION,
    WINDOW: Transformation.WINDOW,
    CONDITION: Transformation.CONDITIONAL,
    JOINED: Transformation.JOIN,
    FILTERED: Transformation.FILTER,
    GROUPED: Transformation.GROUP_BY,
    SORTED: Transformation.SORT,
}
# Two direct ones after each other count as the first of these, as in OpenLineage's own integrations.
_STRONGEST = (Transformation.AGGREGATION, Transformation.TRANSFORMATION, Transformation.IDENTITY)


def shown(name: str) -> Job:
    """The result tables → a view that people and the API read, as the latest migration defines it."""
    output, definition = view(name), views()[name]
    tables = sorted({origin.dataset for origin in (*output.whole, *sum(output.columns.values(), ()))})
    read = tuple(InputDataset(dataset, _schema(dataset.path[-1])) for dataset in tables)
    return Job(f"views.{name}", BATCH, definition.code, read, (output,))


def view(name: str) -> OutputDataset:
    """Where the columns of a view come from."""
    definition = views()[name]
    columns = {column: _origins(sources) for column, sources in definition.columns.items()}
    return OutputDataset(datasets.table(name), columns, _origins(definition.rows), _schema(name))


def answered(pipeline: Pipeline, state: Dataset) -> OutputDataset:
    """The view of a pipeline straight from its state: where Dagster's graph shows no table between.

    Columns of other tables (the active generation, its watermark) have no state topic.
    """
    output, between = view(datasets.view_name(pipeline.name)), rows(pipeline, state)

    def through(origins: Iterable[InputField]) -> Iterator[InputField]:
        for origin in origins:
            if origin.dataset == between.dataset:
                for source in between.columns.get(origin.column, ()):
                    yield replace(source, kind=_through(origin.kind, source.kind))

    columns = {column: tuple(through(origins)) for column, origins in output.columns.items()}
    return OutputDataset(output.dataset, columns, (*through(output.whole), *between.whole), output.schema)


def _origins(sources: Iterable[Source]) -> tuple[InputField, ...]:
    return tuple(InputField(datasets.table(one.table), one.column, _USES[one.use]) for one in sources)


def _schema(name: str) -> tuple[Column, ...]:
    """Of a table or of a view."""
    if (table := metadata.tables.get(name)) is not None:
        return table_schema(table)
    return tuple(Column(column, kind) for column, kind in views()[name].types.items())


def _through(later: Transformation, earlier: Transformation) -> Transformation:
    """What two transformations after each other come to; once it only decides, it only decides."""
    if later in _STRONGEST and earlier in _STRONGEST:
        return min(later, earlier, key=_STRONGEST.index)
    return earlier if later in _STRONGEST else later
