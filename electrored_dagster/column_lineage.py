"""Column lineage as metadata of Dagster's assets: from the outputs of the same jobs that OpenLineage events describe.

What decides over all rows (a filter, a join, a group) is a dependency of each column, as in the API's lineage answers.
It is derived from the pipelines, which need polars, and the code server must not import that: so a child process,
`python -m electrored_dagster.column_lineage`, derives it when columns.json is missing or was derived from other code.
If columns.json cannot be written, each Dagster process derives it at its start.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlencode

import dagster as dg

from contracts import datasets
from contracts.datasets import Dataset
from contracts.settings import LineageSettings
from electrored_dagster.metadata import settings
from observability import logs

if TYPE_CHECKING:
    from lineage import model
    from lineage.model import OutputDataset

FILE = Path(__file__).with_name("columns.json")
# The packages whose code decides where columns come from.
PACKAGES = (
    "contracts",
    "observability",
    "kafka_client",
    "lineage",
    "sources",
    "streaming",
    "electrored_dagster",
)
SUFFIXES = (".py", ".avsc", ".wsdl")
DERIVED_WITHIN_SECONDS = 120
# Asset key, column, type and subtype of the transformation.
Origin = tuple[list[str], str, str, str]


class Output(TypedDict):
    """What one job makes of an asset: by column where it comes from, and what decides over all of its rows."""

    columns: dict[str, list[Origin]]
    rows: list[Origin]


DIRECT = "DIRECT"
EVERY_ROW = "(every row)"

_log = logs.get(__name__)


@cache
def _derived() -> dict[str, list[Output]]:
    code = code_digest()
    kept = _kept()
    if kept.get("code") != code:
        kept = json.loads(_derived_elsewhere())
        _keep(kept)
    columns: dict[str, list[Output]] = kept["columns"]
    return columns


def code_digest() -> str:
    """SHA-256 of the code that decides where columns come from, by content: an image or a wheel has other times."""
    digest = sha256()
    for package in PACKAGES:
        for path in sorted((FILE.parents[1] / package).rglob("*")):
            if path.suffix in SUFFIXES:
                digest.update(
                    path.relative_to(FILE.parents[1]).as_posix().encode() + b"\0" + path.read_bytes()
                )
    return digest.hexdigest()


def _kept() -> dict[str, Any]:
    """The content of columns.json; empty if the file is missing or not valid."""
    try:
        kept = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _derived_elsewhere() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "electrored_dagster.column_lineage"],
        cwd=FILE.parents[1],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=DERIVED_WITHIN_SECONDS,
    )
    return done.stdout


def _keep(lineage: Mapping[str, Any]) -> None:
    # Several processes may write at once: each renames a whole file into place.
    try:
        with NamedTemporaryFile("w", encoding="utf-8", dir=FILE.parent, suffix=".json", delete=False) as new:
            json.dump(lineage, new, indent=1)
        Path(new.name).chmod(0o644)
        Path(new.name).replace(FILE)
    except OSError as error:
        _log.info("column lineage cannot be stored, it is derived at each start", reason=str(error))


def came_from(dataset: Dataset) -> dict[str, Any]:
    """Metadata of an asset: Dagster's column lineage, a table for people, and the URL of the whole graph."""
    query = urlencode({"dataset": _queried(dataset), "direction": "upstream"})
    deps: dict[str, dict[dg.TableColumnDep, None]] = {}
    columns: dict[str, list[Origin]] = {}
    deciding: list[Origin] = []
    for output in _derived()["/".join(dataset.key)]:
        for column, origins in output["columns"].items():
            columns.setdefault(column, []).extend(origins)
            parents = (
                dg.TableColumnDep(dg.AssetKey(key), name) for key, name, *_ in [*origins, *output["rows"]]
            )
            deps.setdefault(column, {}).update(dict.fromkeys(parents))
        deciding += output["rows"]
    rows = [
        dg.TableRecord(
            {
                "column": column,
                "comes from": _text([one for one in origins if one[2] == DIRECT]),
                "decided by": _text([one for one in origins if one[2] != DIRECT]),
            }
        )
        for column, origins in [*columns.items(), (EVERY_ROW, deciding)]
    ]
    return {
        "dagster/column_lineage": dg.TableColumnLineage(
            {name: list(parents) for name, parents in deps.items()}
        ),
        "where_columns_come_from": dg.MetadataValue.table(rows),
        "lineage": dg.MetadataValue.url(f"{settings(LineageSettings).api_url}/api/v1/lineage?{query}"),
    }


def _queried(dataset: Dataset) -> str:
    """The dataset to query: that of the public topic for an internal one, whose name in events has a generation."""
    internal = {datasets.internal(name, role): name for name in datasets.PIPELINES for role in datasets.ROLES}
    return internal.get(dataset, dataset.name)


def _text(origins: Sequence[Origin]) -> str:
    texts = (f"{key[-1]}.{column} ({kind.lower().replace('_', ' ')})" for key, column, _, kind in origins)
    return ", ".join(dict.fromkeys(texts))


def derive() -> dict[str, Any]:
    """The content of columns.json, from the pipelines and sources as they are."""
    by_asset: dict[str, list[Output]] = {}
    for written in _datasets():
        output = Output(
            columns={column: _origins(origins) for column, origins in written.columns.items()},
            rows=_origins(written.whole),
        )
        outputs = by_asset.setdefault("/".join(written.dataset.key), [])
        # Several pipelines write the same dead letters of one log.
        if output not in outputs:
            outputs.append(output)
    return {"code": code_digest(), "columns": by_asset}


def _origins(origins: Iterable[model.InputField]) -> list[Origin]:
    return [
        (one.dataset.key, one.column, *one.kind.value)
        for one in dict.fromkeys(replace(one, description="") for one in origins)
    ]


def _datasets() -> Iterator[OutputDataset]:
    """Outputs of the jobs that OpenLineage events describe; an internal topic is named by its role, as in the graph."""
    from sources import lineage as of_sources
    from streaming import lineage
    from streaming.pipelines import CURRENT, PIPELINES
    from streaming.view_columns import answered

    for job in (of_sources.capture(datasets.SALES.name), of_sources.csv(), of_sources.soap()):
        yield from job.outputs
    for name, version in CURRENT.items():
        pipeline = PIPELINES[name, version]
        roles = {
            datasets.topic(datasets.internal_topic(name, 1, role)): datasets.internal(name, role)
            for role in datasets.ROLES
        }
        for job in (lineage.worker(pipeline, 1), lineage.publisher(pipeline, 1)):
            yield from (_by_role(output, roles) for output in job.outputs)
        yield answered(pipeline, datasets.internal(name, "state"))


def _by_role(output: OutputDataset, roles: Mapping[Dataset, Dataset]) -> OutputDataset:
    def renamed(origins: Iterable[model.InputField]) -> tuple[model.InputField, ...]:
        return tuple(replace(one, dataset=roles.get(one.dataset, one.dataset)) for one in origins)

    return replace(
        output,
        dataset=roles.get(output.dataset, output.dataset),
        columns={column: renamed(origins) for column, origins in output.columns.items()},
        whole=renamed(output.whole),
    )


if __name__ == "__main__":
    json.dump(derive(), sys.stdout)
