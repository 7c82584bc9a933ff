"""Lineage jobs of the sources, built from the lists of columns that they read by."""

from __future__ import annotations

from collections.abc import Iterable

from contracts import datasets
from contracts.columns import SALE_COLUMNS
from contracts.datasets import Dataset
from contracts.schemas import load
from contracts.tables import csv_sales
from contracts.topics import DEAD_LETTERS, PAYMENT_CONFIRMATIONS, SALES_EVENTS, SOURCE_POSITIONS, Topic
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
    named_alike,
    table_schema,
)
from sources.postgres.stream import TYPES

# What a reversal negates.
NEGATED = ("quantity", "amount")
FROM_TEXT = "read from text"

Columns = dict[str, tuple[InputField, ...]]


def capture(table: str) -> Job:
    """The sales table → sales-events."""
    dataset = Dataset(datasets.SALES_DB, tuple(table.split(".")))
    # The table is the company's: which of the supported types its columns have is known to its database only.
    read = InputDataset(
        dataset, tuple(Column(name, " or ".join(TYPES[name].values())) for name in SALE_COLUMNS)
    )
    columns = named_alike(dataset, SALE_COLUMNS) | _negated(dataset)
    columns["currency"] = (
        InputField(dataset, "currency", Transformation.TRANSFORMATION, "without char's padding"),
    )
    columns["recorded_at"] = (
        InputField(dataset, "sold_at", Transformation.IDENTITY, "of rows older than capture"),
    )
    events = _events(SALES_EVENTS, columns, _refused(read, "not if it cannot be an event"))
    return Job(
        "capture", STREAMING, "sources/postgres/capture.py", (read,), (events, _positions(), _dead(read))
    )


def csv() -> Job:
    """Files of sales → sales-events, and their sales so far, which a correction reverses."""
    # polars takes a second to import, and the other sources' jobs do not need it.
    from sources.csv.validate import CELLS, CONTENT, OPERATION

    inbox, kept = datasets.CSV_INBOX, datasets.CSV_SALES
    read = InputDataset(inbox, tuple(Column(name, str(dtype).lower()) for name, dtype in CELLS.items()))
    fields = named_alike(inbox, SALE_COLUMNS)
    # Texts of a file are numbers and timestamps in an event.
    for name in ("sold_at", *NEGATED):
        fields[name] = (InputField(inbox, name, Transformation.TRANSFORMATION, FROM_TEXT),)
    fields["currency"] = (
        InputField(inbox, "currency", Transformation.TRANSFORMATION, "without blanks around it"),
    )
    reversals = named_alike(kept, SALE_COLUMNS) | _negated(kept)
    columns = {name: (*fields[name], *reversals[name]) for name in SALE_COLUMNS}
    columns[OPERATION] = (
        InputField(inbox, OPERATION, Transformation.TRANSFORMATION, "SALE if there is none"),
    )
    refused = _refused(read, "not if it cannot be taken")
    joined = tuple(InputField(dataset, "sale_id", Transformation.JOIN) for dataset in (inbox, kept))
    news = tuple(
        InputField(dataset, name, Transformation.FILTER, "not if it is a duplicate")
        for dataset in (inbox, kept)
        for name in CONTENT
    )
    return Job(
        "csv-take",
        BATCH,
        "sources/csv/ingest.py",
        (read, InputDataset(kept, table_schema(csv_sales))),
        (
            _events(SALES_EVENTS, columns, (*refused, *joined, *news)),
            _positions(),
            # A row may reverse a sale that no file contains.
            _dead(read, joined),
            OutputDataset(kept, fields, refused, table_schema(csv_sales)),
        ),
    )


def retraction() -> Job:
    """The files' sales that still count → their reversals, and less that counts."""
    kept = datasets.CSV_SALES
    read = InputDataset(kept, table_schema(csv_sales))
    events = _events(SALES_EVENTS, named_alike(kept, SALE_COLUMNS) | _negated(kept), ())
    return Job(
        "csv-retract",
        BATCH,
        "sources/csv/retract.py",
        (read,),
        (events, _positions(), OutputDataset(kept, {}, (), read.schema)),
    )


def soap() -> Job:
    """The payment service → payment-confirmations."""
    # Imported here, because it reads the WSDL.
    from contracts.soap import confirmation_types

    service = datasets.PAYMENT_SERVICE
    read = InputDataset(service, tuple(Column(name, kind) for name, kind in confirmation_types().items()))
    columns: Columns = {
        column.name: (
            InputField(service, column.name, Transformation.IDENTITY)
            if column.type == "xs:string"
            else InputField(service, column.name, Transformation.TRANSFORMATION, FROM_TEXT),
        )
        for column in read.schema
    }
    events = _events(PAYMENT_CONFIRMATIONS, columns, _refused(read, "not if it cannot be taken"))
    return Job("soap-poll", BATCH, "sources/soap/poll.py", (read,), (events, _positions(), _dead(read)))


def _negated(dataset: Dataset) -> Columns:
    return {
        name: (InputField(dataset, name, Transformation.TRANSFORMATION, "negated in a reversal"),)
        for name in NEGATED
    }


def _refused(read: InputDataset, description: str) -> tuple[InputField, ...]:
    """Every column may be what an input is refused for."""
    return tuple(
        InputField(read.dataset, column.name, Transformation.FILTER, description) for column in read.schema
    )


def _events(log: Topic, columns: Columns, whole: tuple[InputField, ...]) -> OutputDataset:
    return OutputDataset(datasets.topic(log), columns, whole, avro_schema(load(log.schema)))


def _positions() -> OutputDataset:
    return OutputDataset(datasets.topic(SOURCE_POSITIONS), {}, (), avro_schema(load(SOURCE_POSITIONS.schema)))


def _dead(read: InputDataset, also: Iterable[InputField] = ()) -> OutputDataset:
    description = "as it came, if it could not be taken"
    value = tuple(
        InputField(read.dataset, column.name, Transformation.TRANSFORMATION, description)
        for column in read.schema
    )
    whole = (*_refused(read, "if it could not be taken"), *also)
    return OutputDataset(
        datasets.topic(DEAD_LETTERS), {"value": value}, whole, avro_schema(load(DEAD_LETTERS.schema))
    )
