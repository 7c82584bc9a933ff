"""Where columns come from, on the pages of Dagster: the same values that lineage is told from.

They are derived from the pipelines, which need polars, and the code server shall not hold that: so `python -m
electrored_dagster.columns`, a process that ends, writes what it derives into columns.json. It is run when that file
is missing or older than the code.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import dagster as dg

from contracts import datasets
from contracts.datasets import Dataset
from contracts.settings import LineageSettings
from electrored_dagster.outcomes import settings

if TYPE_CHECKING:
    from observability.lineage.hops import Made

FILE = Path(__file__).with_name("columns.json")
# The rooms whose code says where columns come from.
ROOMS = ("contracts", "observability", "sources", "streaming", "electrored_dagster")
DERIVED_WITHIN_SECONDS = 120
# Asset key, column, type and subtype of the transformation.
Origin = tuple[list[str], str, str, str]
DIRECT = "DIRECT"


@cache
def _derived() -> dict[str, dict[str, list[Origin]]]:
    if _is_outdated():
        subprocess.run(
            [sys.executable, "-m", "electrored_dagster.columns"],
            cwd=FILE.parents[1],
            check=True,
            timeout=DERIVED_WITHIN_SECONDS,
        )
    found: dict[str, dict[str, list[Origin]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def _is_outdated() -> bool:
    if not FILE.exists():
        return True
    made = FILE.stat().st_mtime_ns
    return any(
        path.stat().st_mtime_ns > made for room in ROOMS for path in (FILE.parents[1] / room).rglob("*.py")
    )


def came_from(dataset: Dataset) -> dict[str, Any]:
    """Metadata of an asset: for Dagster, for people, and where the whole way is answered."""
    columns = _derived()["/".join(dataset.key)]
    query = urlencode({"dataset": dataset.name, "direction": "upstream"})
    deps = {
        column: list(
            dict.fromkeys(
                dg.TableColumnDep(dg.AssetKey(key), name) for key, name, kind, _ in origins if kind == DIRECT
            )
        )
        for column, origins in columns.items()
    }
    rows = [
        dg.TableRecord(
            {
                "column": column,
                "comes from": _text([one for one in origins if one[2] == DIRECT]),
                "decided by": _text([one for one in origins if one[2] != DIRECT]),
            }
        )
        for column, origins in columns.items()
    ]
    return {
        "dagster/column_lineage": dg.TableColumnLineage(deps),
        "where_columns_come_from": dg.MetadataValue.table(rows),
        "lineage": dg.MetadataValue.url(f"{settings(LineageSettings).api_url}/api/v1/lineage?{query}"),
    }


def _text(origins: Sequence[Origin]) -> str:
    return ", ".join(
        f"{key[-1]}.{column} ({made.lower().replace('_', ' ')})" for key, column, _, made in origins
    )


def derive() -> str:
    """The content of columns.json, from the pipelines and sources as they are."""
    made = {
        "/".join(one.dataset.key): {
            column: [
                (origin.dataset.key, origin.column, *origin.kind.value) for origin in dict.fromkeys(origins)
            ]
            for column, origins in one.columns.items()
        }
        for one in _made()
    }
    return json.dumps(made, indent=1) + "\n"


def _made() -> Iterator[Made]:
    from sources import lineage as of_sources
    from streaming import lineage
    from streaming.pipelines import CURRENT, PIPELINES
    from streaming.shown import answered

    yield of_sources.csv_taken()
    yield of_sources.log()
    yield of_sources.soap().outputs[0]
    for name, version in CURRENT.items():
        pipeline = PIPELINES[name, version]
        partials, state = (datasets.internal(name, role) for role in datasets.ROLES)
        yield lineage.combined(
            pipeline, partials, [datasets.topic(found.source) for found in pipeline.inputs]
        )
        yield lineage.merged(pipeline, partials, state)
        yield lineage.published(pipeline, state)
        yield answered(pipeline, state)


if __name__ == "__main__":
    # Several processes may find it outdated: each puts a whole file into place.
    with NamedTemporaryFile("w", encoding="utf-8", dir=FILE.parent, suffix=".json", delete=False) as new:
        new.write(derive())
    Path(new.name).chmod(0o644)
    Path(new.name).replace(FILE)
