"""Lineage from the newest event of each job, which `lineage/store.py` stores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from api.lineage_schemas import JobState, Lineage, LineageStep
from lineage.graph import Direction, Graph
from lineage.run import FACET

# A job runs if any of its runs does, and has the least watermark of these; without any, its state is that of its newest
# event. Hidden: jobs of generations that are gone, and replays whose generation is built.
_JOBS = """
    SELECT j.name, j.event_at, j.facets, j.inputs, j.outputs, r.watermark, r.name IS NOT NULL AS is_running,
      CASE WHEN r.name IS NULL THEN j.event_type ELSE 'RUNNING' END AS state
    FROM lineage_jobs AS j LEFT JOIN (
      SELECT namespace, name, min(watermark) AS watermark FROM lineage_runs WHERE is_open GROUP BY namespace, name
    ) AS r ON r.namespace = j.namespace AND r.name = j.name
    WHERE NOT EXISTS (
      SELECT FROM generations AS g WHERE j.generation = g.pipeline || '.g' || g.number
      AND (g.state IN ('retired', 'failed') OR g.state <> 'building' AND j.name = j.generation || '.replay')
    ) ORDER BY j.namespace, j.name
"""
# Limit of names in an error message.
MOST_NAMES = 50


class NotKnown(Exception):
    """No job reads or writes the dataset, or it has no such column; the message lists what there is."""


class Ambiguous(Exception):
    """Several datasets have the name; the message lists them."""


def traced(connection: Connection, dataset: str, column: str | None, direction: Direction) -> bytes:
    """The lineage of a dataset or column in one direction, as JSON. Raises NotKnown and Ambiguous."""
    rows = list(connection.exec_driver_sql(_JOBS).mappings())
    graph = Graph.of(dict(row) for row in rows)
    places = graph.find(dataset, column)
    if not places:
        raise NotKnown(_unknown(graph, dataset, column))
    if len(places) > 1:
        raise Ambiguous(
            f"several are called {dataset}: "
            + ", ".join(f"{p.namespace}/{p.name}" for p in places[:MOST_NAMES])
        )
    step = LineageStep.model_validate(graph.trace(places[0], direction))
    names = set(_jobs(step))
    jobs = [
        JobState(name=row["name"], state=row["state"], told_at=row["event_at"], watermark=_watermark(row))
        for row in rows
        if row["name"] in names
    ]
    return Lineage(direction=direction, step=step, jobs=jobs).model_dump_json().encode()


def _unknown(graph: Graph, dataset: str, column: str | None) -> str:
    named = dataset
    while column is None and not graph.find(named) and "." in named:
        # Its column may be behind a dot, and so may the end of its own name.
        named = named.rpartition(".")[0]
    if places := graph.find(named):
        wrong = column if column is not None else dataset[len(named) + 1 :]
        return f"{named} has no column {wrong}; it has {', '.join(graph.columns[places[0]]) or 'none'}"
    known = ", ".join(sorted({place.name for place in graph.columns})[:MOST_NAMES])
    return (
        f"no job reads or writes {dataset}; there are: {known or 'none yet, jobs emit lineage when they run'}"
    )


def _watermark(row: Any) -> Any:
    if row["is_running"]:
        return row["watermark"]
    return (row["facets"]["run"].get(FACET) or {}).get("watermark")


def _jobs(step: LineageStep) -> Iterator[str]:
    if step.job is not None:
        yield step.job
    for one in step.next:
        yield from _jobs(one)
