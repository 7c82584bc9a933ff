"""Inputs and outputs of a job, column by column: one model for OpenLineage events and Dagster metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sqlalchemy import Table

from contracts.datasets import Dataset
from contracts.tables import sql_type


class Transformation(Enum):
    """Type and subtype of a transformation. Direct: the value comes from it. Indirect: it influences the value."""

    IDENTITY = ("DIRECT", "IDENTITY")
    TRANSFORMATION = ("DIRECT", "TRANSFORMATION")
    AGGREGATION = ("DIRECT", "AGGREGATION")
    JOIN = ("INDIRECT", "JOIN")
    GROUP_BY = ("INDIRECT", "GROUP_BY")
    FILTER = ("INDIRECT", "FILTER")
    SORT = ("INDIRECT", "SORT")
    WINDOW = ("INDIRECT", "WINDOW")
    CONDITIONAL = ("INDIRECT", "CONDITIONAL")


@dataclass(frozen=True)
class InputField:
    """A column that another one comes from; a column of a list's items is `list.column`."""

    dataset: Dataset
    column: str
    kind: Transformation
    description: str = ""


@dataclass(frozen=True)
class Column:
    """A column as a schema has it."""

    name: str
    type: str | None = None


@dataclass(frozen=True)
class OutputDataset:
    """A dataset that a job writes: where each column comes from, and what influences all of its rows."""

    dataset: Dataset
    columns: Mapping[str, tuple[InputField, ...]] = field(default_factory=dict)
    whole: tuple[InputField, ...] = ()
    schema: tuple[Column, ...] = ()


@dataclass(frozen=True)
class InputDataset:
    """A dataset that a job reads."""

    dataset: Dataset
    schema: tuple[Column, ...] = ()


@dataclass(frozen=True)
class Job:
    """A job: inputs and outputs are the same for each of its runs. `code` is a path in this repository."""

    name: str
    processing: str
    code: str
    inputs: tuple[InputDataset, ...]
    outputs: tuple[OutputDataset, ...]
    generation: str | None = None


STREAMING, BATCH = "STREAMING", "BATCH"


def named_alike(dataset: Dataset, names: Iterable[str]) -> dict[str, tuple[InputField, ...]]:
    """Every column comes from that of the same name, as it is."""
    return {name: (InputField(dataset, name, Transformation.IDENTITY),) for name in names}


def table_schema(table: Table) -> tuple[Column, ...]:
    """The columns of a table of the results database."""
    return tuple(Column(column.name, sql_type(column)) for column in table.columns)


def avro_schema(schema: object) -> tuple[Column, ...]:
    """The fields of an Avro record; of a union of them, those of each."""
    records: list[Any] = schema if isinstance(schema, list) else [schema]
    types = {member["name"]: member["type"] for record in records for member in record["fields"]}
    return tuple(Column(name, avro_type(avro)) for name, avro in types.items())


def avro_type(avro: object) -> str:
    """An Avro type in a word."""
    if isinstance(avro, list):
        return next(avro_type(branch) for branch in avro if branch != "null")
    if isinstance(avro, dict):
        return str(avro.get("logicalType") or avro["type"])
    return str(avro)
