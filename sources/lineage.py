"""What the sources make of the outside world, from the lists of columns that they read by."""

from __future__ import annotations

from dataclasses import replace

from contracts import datasets
from contracts.columns import SALE_COLUMNS
from contracts.datasets import Dataset
from contracts.schemas import load
from contracts.tables import csv_sales
from contracts.topics import DEAD_LETTERS, PAYMENT_CONFIRMATIONS, SALES_EVENTS, SOURCE_POSITIONS, Topic
from observability.lineage.hops import (
    BATCH,
    STREAMING,
    Column,
    Job,
    Kind,
    Made,
    Origin,
    Read,
    avro_schema,
    named_alike,
)

# Of the event's columns, those that a source knows by itself.
OWN = ("source", "seq", "operation", "recorded_at")
CONFIRMATION_COLUMNS = tuple(
    column.name for column in avro_schema(load(PAYMENT_CONFIRMATIONS.schema)) if column.name not in OWN
)
_SALE = tuple(Column(name) for name in SALE_COLUMNS)


def capture(table: str) -> Job:
    """The sales table → sales-events."""
    read = Dataset(datasets.SALES_DB, tuple(table.split(".")))
    columns = named_alike(read, SALE_COLUMNS)
    for negated in ("quantity", "amount"):
        columns[negated] = (Origin(read, negated, Kind.IDENTITY, "negated in a reversal"),)
    return Job(
        "capture",
        STREAMING,
        "sources/postgres/capture.py",
        (Read(read, _SALE),),
        _written(SALES_EVENTS, columns),
    )


def log() -> Made:
    """sales-events as Dagster's graph shows it: what the table says, and what the files said last."""
    columns = {
        column: (*origins, *(Origin(datasets.CSV_SALES, column, Kind.IDENTITY) for _ in origins[:1]))
        for column, origins in capture(datasets.SALES.name).outputs[0].columns.items()
    }
    return Made(datasets.topic(SALES_EVENTS), columns)


def csv_taken() -> Made:
    """What is kept of the files."""
    return csv().outputs[-1]


def csv() -> Job:
    """Files of sales → sales-events, and the cache of what they say."""
    columns = named_alike(datasets.CSV_INBOX, SALE_COLUMNS)
    # The words of a file are numbers and moments in an event.
    for name in ("sold_at", "quantity", "amount"):
        columns[name] = (Origin(datasets.CSV_INBOX, name, Kind.TRANSFORMATION, "read from text"),)
    optional = "operation"
    columns[optional] = (Origin(datasets.CSV_INBOX, optional, Kind.TRANSFORMATION, "SALE if there is none"),)
    kept = {name: columns[name] for name in SALE_COLUMNS}
    schema = tuple(Column(column.name, str(column.type)) for column in csv_sales.columns)
    return Job(
        "csv-take",
        BATCH,
        "sources/csv/intake.py",
        (Read(datasets.CSV_INBOX, (*_SALE, Column(optional))),),
        (*_written(SALES_EVENTS, columns), Made(datasets.CSV_SALES, kept, (), schema)),
    )


def soap() -> Job:
    """The payment service → payment-confirmations."""
    return Job(
        "soap-poll",
        BATCH,
        "sources/soap/poll.py",
        (Read(datasets.PAYMENT_SERVICE, tuple(Column(name) for name in CONFIRMATION_COLUMNS)),),
        _written(PAYMENT_CONFIRMATIONS, named_alike(datasets.PAYMENT_SERVICE, CONFIRMATION_COLUMNS)),
    )


def _written(log: Topic, columns: dict[str, tuple[Origin, ...]]) -> tuple[Made, ...]:
    refused = tuple(
        replace(origin, kind=Kind.TRANSFORMATION, said="as it came, if it could not be taken")
        for origins in columns.values()
        for origin in origins
    )
    return (
        Made(datasets.topic(log), columns, (), avro_schema(load(log.schema))),
        Made(datasets.topic(SOURCE_POSITIONS), {}, (), avro_schema(load(SOURCE_POSITIONS.schema))),
        Made(datasets.topic(DEAD_LETTERS), {"value": refused}, (), avro_schema(load(DEAD_LETTERS.schema))),
    )
