"""Column lineage of the views: the last hop, from the result tables to what people and the API read.

Its own module because it parses SQL: a worker does not import the parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from contracts import datasets
from contracts.datasets import Dataset
from lineage.model import BATCH, InputDataset, InputField, Job, OutputDataset, Transformation
from lineage.views import schema, views
from streaming.engine.pipeline import Pipeline
from streaming.lineage import rows

# Two direct ones after each other count as the first of these, as in OpenLineage's own integrations.
_STRONGEST = (Transformation.AGGREGATION, Transformation.TRANSFORMATION, Transformation.IDENTITY)


def shown(name: str) -> Job:
    """The result tables → a view that people and the API read, as the latest migration defines it."""
    view = views()[name]
    tables = sorted(
        {origin.dataset for origin in (*view.output.whole, *sum(view.output.columns.values(), ()))}
    )
    read = tuple(InputDataset(dataset, schema(dataset.path[-1])) for dataset in tables)
    return Job(f"views.{name}", BATCH, view.code, read, (view.output,))


def answered(pipeline: Pipeline, state: Dataset) -> OutputDataset:
    """The view of a pipeline straight from its state: where Dagster's graph shows no table between.

    Columns of other tables (the active generation, its watermark) have no state topic.
    """
    output, between = views()[datasets.view_name(pipeline.name)].output, rows(pipeline, state)

    def through(origins: Iterable[InputField]) -> Iterator[InputField]:
        for origin in origins:
            if origin.dataset == between.dataset:
                for source in between.columns.get(origin.column, ()):
                    yield replace(source, kind=_through(origin.kind, source.kind))

    columns = {column: tuple(through(origins)) for column, origins in output.columns.items()}
    return OutputDataset(output.dataset, columns, (*through(output.whole), *between.whole), output.schema)


def _through(later: Transformation, earlier: Transformation) -> Transformation:
    """What two transformations after each other come to; once it only decides, it only decides."""
    if later in _STRONGEST and earlier in _STRONGEST:
        return min(later, earlier, key=_STRONGEST.index)
    return earlier if later in _STRONGEST else later
