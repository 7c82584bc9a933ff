"""How the graph's nodes are described: one way to make an asset from a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster import TableColumn, TableSchema

from contracts.datasets import KAFKA, RESULTS_DB, SALES_DB, Dataset


def key(dataset: Dataset) -> dg.AssetKey:
    return dg.AssetKey(dataset.key)


def described(
    dataset: Dataset,
    *,
    group: str,
    description: str,
    deps: Iterable[Dataset] = (),
    kinds: set[str],
    internal: bool = False,
    metadata: Mapping[str, Any] | None = None,
    freshness: dg.FreshnessPolicy | None = None,
) -> dg.AssetSpec:
    """A dataset as Dagster shows it; external, and only observed, unless a definition materialises the spec."""
    place = {}
    if dataset.system == KAFKA:
        place = {"dagster/uri": f"kafka://{dataset.name}"}
    elif dataset.system in (SALES_DB, RESULTS_DB):
        place = {"dagster/table_name": f"{dataset.system}.{dataset.name}"}
    return dg.AssetSpec(
        key(dataset),
        group_name=group,
        description=description,
        deps=[key(dep) for dep in deps],
        kinds=kinds,
        tags={"electrored/readers": "internal" if internal else "public"},
        metadata={**place, **(metadata or {})},
        freshness_policy=freshness,
    )


def evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    """The result of a check, for a sensor to report. Raises ValueError if the result names no check."""
    if result.asset_key is None or result.check_name is None:
        raise ValueError(f"of which check is {result}?")
    return dg.AssetCheckEvaluation(
        result.asset_key,
        result.check_name,
        result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )


def avro_columns(schema: Mapping[str, Any] | Sequence[Any]) -> TableSchema:
    """The fields of an Avro record (the first, of a union) as Dagster's column schema."""
    record = schema if isinstance(schema, Mapping) else schema[0]
    return TableSchema(
        [
            TableColumn(field["name"], _avro_type(field["type"]), field.get("doc"))
            for field in record["fields"]
        ]
    )


def _avro_type(avro: Any) -> str:
    if isinstance(avro, str):
        return avro
    if isinstance(avro, list):
        return " or ".join(_avro_type(branch) for branch in avro)
    return str(avro.get("logicalType") or avro["type"])
