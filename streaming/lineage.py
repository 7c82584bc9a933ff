"""Column lineage of a pipeline, derived from the pipeline's value.

Hops: inputs → partials (combine), partials → state (merge), state → rows and public topic (sink, publisher).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from contracts import datasets
from contracts.datasets import Dataset
from contracts.schemas import load
from contracts.tables import metadata
from contracts.topics import DEAD_LETTERS, LATE_EVENTS, SOURCE_POSITIONS, GenerationTopics
from lineage.model import (
    BATCH,
    STREAMING,
    Column,
    InputDataset,
    InputField,
    Job,
    OutputDataset,
    Transformation,
    avro_schema,
    avro_type,
    named_alike,
    table_schema,
)
from streaming.engine.aggregates import Aggregate, ArgMax, Count, Field, LateStats, NestedGroups, Sum
from streaming.engine.pipeline import Input, Pipeline

CODE = {"worker": "streaming/pipelines/{module}.py", "sink": "streaming/sink/postgres.py"}
PUBLISHER_CODE = "streaming/sink/publisher.py"
LATE = "recorded after the window's end and grace"
# What the sink itself adds to the columns that come from the state topic.
OWN = ("generation", "updated_at", "apply_number", "is_negative")


def worker(pipeline: Pipeline, generation: int) -> Job:
    """Combine and merge of a generation."""
    topics = GenerationTopics(pipeline.name, generation)
    partials, state = datasets.topic(topics.partials), datasets.topic(topics.state)
    inputs = [datasets.topic(each.source) for each in pipeline.inputs]
    return Job(
        f"{pipeline.name}.g{generation}",
        STREAMING,
        CODE["worker"].format(module=datasets.view_name(pipeline.name)),
        (
            *(
                InputDataset(datasets.topic(each.source), avro_schema(load(each.source.schema)))
                for each in pipeline.inputs
            ),
            InputDataset(datasets.topic(SOURCE_POSITIONS), avro_schema(load(SOURCE_POSITIONS.schema))),
            InputDataset(partials, _fields(pipeline)),
        ),
        (
            combined(pipeline, partials, inputs),
            merged(pipeline, partials, state),
            *_late(pipeline),
            _dead(pipeline),
        ),
        f"{pipeline.name}.g{generation}",
    )


def replay(pipeline: Pipeline, generation: int) -> Job:
    """A slice of a replay: as a worker, but it ends, and writes no late events."""
    job = worker(pipeline, generation)
    outputs = tuple(output for output in job.outputs if output.dataset != datasets.topic(LATE_EVENTS))
    return replace(job, name=f"{job.name}.replay", processing=BATCH, outputs=outputs)


def sink(pipeline: Pipeline, generation: int) -> Job:
    """State → rows."""
    state = datasets.topic(GenerationTopics(pipeline.name, generation).state)
    return Job(
        f"{pipeline.name}.g{generation}.sink",
        STREAMING,
        CODE["sink"],
        (InputDataset(state, _fields(pipeline)),),
        (rows(pipeline, state),),
        f"{pipeline.name}.g{generation}",
    )


def publisher(pipeline: Pipeline, generation: int) -> Job:
    """State → public topic."""
    state = datasets.topic(GenerationTopics(pipeline.name, generation).state)
    return Job(
        f"{pipeline.name}.publisher",
        STREAMING,
        PUBLISHER_CODE,
        (InputDataset(state, _fields(pipeline)),),
        (published(pipeline, state),),
        f"{pipeline.name}.g{generation}",
    )


def combined(pipeline: Pipeline, partials: Dataset, inputs: list[Dataset]) -> OutputDataset:
    """Partials, from the events of all inputs."""
    columns: dict[str, list[InputField]] = {}
    whole: list[InputField] = []
    for source_input, dataset in zip(pipeline.inputs, inputs, strict=True):
        for name, origin in _keys(pipeline, source_input, dataset):
            columns.setdefault(name, []).append(origin)
        for aggregate in source_input.aggregates:
            for name, origin in _collected(aggregate, source_input, dataset):
                columns.setdefault(name, []).append(origin)
        whole += _deciding(pipeline, source_input, dataset)
    return OutputDataset(
        partials, {name: tuple(origins) for name, origins in columns.items()}, tuple(whole), _fields(pipeline)
    )


def _late(pipeline: Pipeline) -> Iterator[OutputDataset]:
    """Late events; none of a pipeline without windows."""
    source_input = pipeline.inputs[0]
    if pipeline.calendar is None:
        return
    dataset, events = datasets.topic(source_input.source), source_input.events
    bounds = _keys(pipeline, source_input, dataset)
    columns: dict[str, tuple[InputField, ...]] = {"event": _embedded(source_input)}
    columns |= {name: (origin,) for name, origin in bounds if name not in pipeline.group_by}
    whole = [
        InputField(dataset, name, Transformation.FILTER, LATE)
        for name in (events.event_time, events.recorded_time)
    ]
    yield OutputDataset(
        datasets.topic(LATE_EVENTS), columns, tuple(whole), avro_schema(load(LATE_EVENTS.schema))
    )


def _dead(pipeline: Pipeline) -> OutputDataset:
    """Dead letters: events that a check refused, and values that are no events."""
    value = tuple(origin for each in pipeline.inputs for origin in _embedded(each))
    whole = [
        InputField(datasets.topic(each.source), name, Transformation.FILTER, check.reason)
        for each in pipeline.inputs
        for check in each.checks
        for name in check.reads
    ]
    columns = {"value": value}
    return OutputDataset(
        datasets.topic(DEAD_LETTERS), columns, tuple(whole), avro_schema(load(DEAD_LETTERS.schema))
    )


def _embedded(source_input: Input) -> tuple[InputField, ...]:
    """An event as it is in its log, in one column of another dataset."""
    description, dataset = "as it stands in the log", datasets.topic(source_input.source)
    return tuple(
        InputField(dataset, column.name, Transformation.TRANSFORMATION, description)
        for column in avro_schema(load(source_input.source.schema))
    )


def merged(pipeline: Pipeline, partials: Dataset, state: Dataset) -> OutputDataset:
    """Totals, from partials: groups are kept, the rest is added, or taken from the greatest."""
    columns: dict[str, list[InputField]] = {
        name: [InputField(partials, name, Transformation.IDENTITY)] for name in keys_of(pipeline)
    }
    for aggregate in pipeline.aggregates:
        for name, origin in _added(aggregate, partials):
            columns.setdefault(name, []).append(origin)
    whole = tuple(InputField(partials, name, Transformation.GROUP_BY) for name in keys_of(pipeline))
    return OutputDataset(
        state, {name: tuple(origins) for name, origins in columns.items()}, whole, _fields(pipeline)
    )


def _added(aggregate: Aggregate, partials: Dataset) -> Iterator[tuple[str, InputField]]:
    """By field of the aggregate, the columns of partials that it comes from."""
    match aggregate:
        case NestedGroups():
            yield from _items_added(aggregate, partials)
        case ArgMax():
            order = aggregate.fields[1:]
            for field in aggregate.fields:
                yield (
                    field.name,
                    InputField(partials, field.name, Transformation.AGGREGATION, "of the greatest"),
                )
                for by in order:
                    yield field.name, InputField(partials, by.name, Transformation.SORT)
        case _:
            for field in aggregate.fields:
                yield field.name, InputField(partials, field.name, Transformation.AGGREGATION)


def _items_added(aggregate: NestedGroups, partials: Dataset) -> Iterator[tuple[str, InputField]]:
    by = {field.name for field in aggregate.by}
    for field in aggregate.item:
        name = f"{aggregate.name}.{field.name}"
        if field.name in by:
            yield name, InputField(partials, name, Transformation.IDENTITY)
            continue
        yield name, InputField(partials, name, Transformation.AGGREGATION)
        yield from ((name, origin) for origin in _item_by(aggregate, field, partials, f"{aggregate.name}."))


def _item_by(
    aggregate: NestedGroups, field: Field, dataset: Dataset, prefix: str = ""
) -> Iterator[InputField]:
    """What decides a field of an item: which facts are of one item, and which of them is the greatest."""
    for by in aggregate.by:
        yield InputField(dataset, f"{prefix}{by.name}", Transformation.GROUP_BY)
    if field in (*aggregate.order, *aggregate.latest):
        for order in aggregate.order:
            yield InputField(dataset, f"{prefix}{order.name}", Transformation.SORT)


def rows(pipeline: Pipeline, state: Dataset) -> OutputDataset:
    """Rows, from totals."""
    table = metadata.tables[pipeline.table]
    names = [column.name for column in table.columns if column.name not in OWN]
    return OutputDataset(
        datasets.table(pipeline.table), _shown(pipeline, state, names), (), table_schema(table)
    )


def published(pipeline: Pipeline, state: Dataset) -> OutputDataset:
    """Public values, from totals."""
    schema = load(pipeline.output.schema)
    names = [column.name for column in _nested(schema)]
    whole = tuple(
        InputField(state, name, Transformation.FILTER, "not if it is 0") for name in _counts(pipeline)
    )
    return OutputDataset(
        datasets.topic(pipeline.output), _shown(pipeline, state, names), whole, tuple(_nested(schema))
    )


def _counts(pipeline: Pipeline) -> Iterator[str]:
    """The columns with a group's count: a group is not published if it is 0."""
    for aggregate in pipeline.aggregates:
        if isinstance(aggregate, Count):
            yield aggregate.name
        elif isinstance(aggregate, NestedGroups) and aggregate.count is not None:
            yield f"{aggregate.name}.{aggregate.count}"


def keys_of(pipeline: Pipeline) -> list[str]:
    return [field.name for field in pipeline.key_fields]


def _keys(pipeline: Pipeline, source_input: Input, dataset: Dataset) -> Iterator[tuple[str, InputField]]:
    for field in pipeline.key_fields:
        if field.name in pipeline.group_by:
            yield field.name, InputField(dataset, field.name, Transformation.IDENTITY)
        else:
            description = f"bound of the window of the calendar {pipeline.calendar}"
            yield (
                field.name,
                InputField(
                    dataset, source_input.events.event_time, Transformation.TRANSFORMATION, description
                ),
            )


def _collected(
    aggregate: Aggregate, source_input: Input, dataset: Dataset
) -> Iterator[tuple[str, InputField]]:
    """By field of the aggregate, the event columns that it comes from."""
    events = source_input.events

    def late() -> Iterator[InputField]:
        for name in (events.event_time, events.recorded_time):
            yield InputField(dataset, name, Transformation.CONDITIONAL, LATE)

    match aggregate:
        case Sum():
            yield aggregate.name, InputField(dataset, aggregate.column, Transformation.AGGREGATION, "sum")
        case Count():
            for name in events.sign_reads:
                yield aggregate.name, InputField(dataset, name, Transformation.AGGREGATION, "sum of signs")
        case LateStats():
            count, amount, newest = (field.name for field in aggregate.fields)
            for name in events.sign_reads:
                yield count, InputField(dataset, name, Transformation.AGGREGATION, "count")
            yield amount, InputField(dataset, aggregate.column, Transformation.AGGREGATION, "sum")
            yield newest, InputField(dataset, aggregate.recorded_at, Transformation.AGGREGATION, "max")
            for name in (count, amount, newest):
                for origin in late():
                    yield name, origin
        case ArgMax():
            for field, name in zip(aggregate.fields, aggregate.reads, strict=True):
                yield field.name, InputField(dataset, name, Transformation.AGGREGATION, "of the greatest")
                for by in aggregate.by:
                    yield field.name, InputField(dataset, by.name, Transformation.SORT)
        case NestedGroups():
            yield from _items(aggregate, source_input, dataset)


def _items(
    aggregate: NestedGroups, source_input: Input, dataset: Dataset
) -> Iterator[tuple[str, InputField]]:
    by = {field.name for field in aggregate.by}
    for field in aggregate.item:
        name = f"{aggregate.name}.{field.name}"
        if field.name in by:
            yield name, InputField(dataset, field.name, Transformation.IDENTITY)
            continue
        if field.name == aggregate.count:
            for sign in source_input.events.sign_reads:
                yield name, InputField(dataset, sign, Transformation.AGGREGATION, "sum of signs")
        elif field.name in aggregate.sums:
            yield name, InputField(dataset, field.name, Transformation.AGGREGATION, "sum")
        else:
            yield name, InputField(dataset, field.name, Transformation.AGGREGATION, "of the greatest")
        yield from ((name, origin) for origin in _item_by(aggregate, field, dataset))


def _deciding(pipeline: Pipeline, source_input: Input, dataset: Dataset) -> Iterator[InputField]:
    """What decides whether an event counts, and with which."""
    kind = Transformation.JOIN if len(pipeline.inputs) > 1 else Transformation.GROUP_BY
    for name in pipeline.group_by:
        yield InputField(dataset, name, kind)
    if pipeline.calendar is not None:
        yield InputField(dataset, source_input.events.event_time, Transformation.WINDOW)
    for check in source_input.checks:
        for name in check.reads:
            yield InputField(dataset, name, Transformation.FILTER, f"not if {check.reason}")
    for name in (source_input.events.source, source_input.events.seq):
        yield InputField(dataset, name, Transformation.FILTER, "not if seen before")


def _fields(pipeline: Pipeline) -> tuple[Column, ...]:
    """The columns of a partial and of a total; those of a list's items as `list.column`."""
    items = {
        aggregate.name: aggregate for aggregate in pipeline.aggregates if isinstance(aggregate, NestedGroups)
    }
    columns: list[Column] = []
    for field in pipeline.fields:
        if field.name in items:
            each = items[field.name]
            columns += [Column(f"{each.name}.{one.name}", avro_type(one.avro)) for one in each.item]
        else:
            columns.append(Column(field.name, avro_type(field.avro)))
    return tuple(columns)


def _nested(schema: dict[str, object]) -> Iterator[Column]:
    """The fields of a record; those of a list of records as `list.column`."""
    for column, field in zip(avro_schema(schema), schema["fields"], strict=True):  # type: ignore[call-overload]
        items = field["type"].get("items") if isinstance(field["type"], dict) else None
        if isinstance(items, dict):
            yield from (Column(f"{column.name}.{one.name}", one.type) for one in avro_schema(items))
        else:
            yield column


def _shown(pipeline: Pipeline, state: Dataset, names: list[str]) -> dict[str, tuple[InputField, ...]]:
    """Columns of rows and of public values: from `made_of`, else the column of the same name in the total."""
    known = [column.name for column in _fields(pipeline)]
    # A row shows an item of the first list: its columns are called as the item's.
    of_items: dict[str, str] = {}
    for name in known:
        if "." in name:
            of_items.setdefault(name.rpartition(".")[2], name)
    columns: dict[str, tuple[InputField, ...]] = {}
    for name in names:
        if (made_of := pipeline.made_of.get(name)) is not None:
            columns[name] = tuple(InputField(state, one, Transformation.TRANSFORMATION) for one in made_of)
        elif name in known:
            columns |= named_alike(state, [name])
        elif name in of_items:
            columns[name] = (InputField(state, of_items[name], Transformation.IDENTITY),)
        else:
            raise ValueError(f"{pipeline.name} has no `made_of` for its column {name}")
    return columns
