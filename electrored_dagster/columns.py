"""Where columns come from, on the pages of Dagster: the same values that lineage is told from.

They are derived from the pipelines, which need polars, and the code server shall not hold that: so a process that ends,
`python -m electrored_dagster.columns`, derives them, when columns.json is missing or was derived from other code. In
an installation that cannot be written each process of Dagster's does that for itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import dagster as dg

from contracts import datasets
from contracts.datasets import Dataset
from contracts.settings import LineageSettings
from electrored_dagster.outcomes import settings
from observability import logs

if TYPE_CHECKING:
    from observability.lineage.hops import Made

FILE = Path(__file__).with_name("columns.json")
# The rooms whose code says where columns come from.
ROOMS = ("contracts", "observability", "sources", "streaming", "electrored_dagster")
SUFFIXES = (".py", ".avsc")
DERIVED_WITHIN_SECONDS = 120
# Asset key, column, type and subtype of the transformation.
Origin = tuple[list[str], str, str, str]
DIRECT = "DIRECT"

_log = logs.get(__name__)


@cache
def _derived() -> dict[str, dict[str, list[Origin]]]:
    code = code_digest()
    kept = _kept()
    if kept.get("code") != code:
        kept = json.loads(_derived_elsewhere())
        _keep(kept)
    found: dict[str, dict[str, list[Origin]]] = kept["columns"]
    return found


def code_digest() -> str:
    """Of all that says where columns come from, by content: times say nothing in an image or a wheel."""
    digest = sha256()
    for room in ROOMS:
        for path in sorted((FILE.parents[1] / room).rglob("*")):
            if path.suffix in SUFFIXES:
                digest.update(
                    path.relative_to(FILE.parents[1]).as_posix().encode() + b"\0" + path.read_bytes()
                )
    return digest.hexdigest()


def _kept() -> dict[str, Any]:
    """Nothing if there is none, or what nobody of ours wrote."""
    try:
        kept = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _derived_elsewhere() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "electrored_dagster.columns"],
        cwd=FILE.parents[1],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=DERIVED_WITHIN_SECONDS,
    )
    return done.stdout


def _keep(made: Mapping[str, Any]) -> None:
    # Several processes may do it at once: each puts a whole file into place.
    try:
        with NamedTemporaryFile("w", encoding="utf-8", dir=FILE.parent, suffix=".json", delete=False) as new:
            json.dump(made, new, indent=1)
        Path(new.name).chmod(0o644)
        Path(new.name).replace(FILE)
    except OSError as error:
        _log.info("where columns come from is derived at each start", reason=str(error))


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


def derive() -> dict[str, Any]:
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
    return {"code": code_digest(), "columns": made}


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
    json.dump(derive(), sys.stdout)
