"""The lineage graph of datasets and columns, from the newest event of each job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Direction = Literal["upstream", "downstream"]
# As the API returns it: a place, the job and transformations that lead to it, and the steps that follow.
Step = dict[str, Any]


@dataclass(frozen=True, order=True)
class Place:
    """A dataset, or a column of one."""

    namespace: str
    name: str
    column: str | None = None


@dataclass(frozen=True)
class Edge:
    """A job derives `target` from `source`; between datasets without transformations."""

    source: Place
    target: Place
    job: str
    transformations: tuple[tuple[str, str, str], ...] = ()

    @property
    def is_direct(self) -> bool:
        """Whether the value itself comes from there, and is not only influenced by it."""
        return not self.transformations or any(kind == "DIRECT" for kind, _, _ in self.transformations)


@dataclass
class Graph:
    """Edges of all jobs, and the columns of each dataset."""

    # By source, target and job: the transformations, in order.
    _transformations: dict[tuple[Place, Place, str], dict[tuple[str, str, str], None]] = field(
        default_factory=dict
    )
    columns: dict[Place, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, jobs: Iterable[Mapping[str, Any]]) -> Graph:
        """From rows of `lineage_jobs`."""
        graph = cls()
        for job in jobs:
            # Other producers may emit events of another shape: skipped.
            with suppress(KeyError, TypeError, AttributeError):
                graph._add(job)
        return graph

    def _add(self, job: Mapping[str, Any]) -> None:
        inputs = [self._dataset(one) for one in job["inputs"]]
        for output in job["outputs"]:
            target = self._dataset(output)
            lineage = (output.get("facets") or {}).get("columnLineage") or {}
            fields: Mapping[str, Any] = lineage.get("fields", {})
            of_columns = [
                (column, one) for column, origins in fields.items() for one in origins["inputFields"]
            ]
            # What influences all rows influences each column.
            of_columns += [(column, one) for one in lineage.get("dataset", ()) for column in fields]
            for column, one in of_columns:
                source = Place(one["namespace"], one["name"], one["field"])
                self._note(Place(one["namespace"], one["name"]), one["field"])
                self._note(target, column)
                to = Place(target.namespace, target.name, column)
                known = self._transformations.setdefault((source, to, job["name"]), {})
                known.update(dict.fromkeys(_transformations(one)))
            # Of a job that reads its own output, the columns decide which inputs an output has.
            for source in {Place(one["namespace"], one["name"]) for _, one in of_columns} or set(inputs):
                if source != target:
                    self._transformations.setdefault((source, target, job["name"]), {})

    @property
    def edges(self) -> Iterator[Edge]:
        for (source, target, job), transformations in self._transformations.items():
            yield Edge(source, target, job, tuple(transformations))

    def _dataset(self, dataset: Mapping[str, Any]) -> Place:
        place = Place(dataset["namespace"], dataset["name"])
        self.columns.setdefault(place, [])
        for schema_field in ((dataset.get("facets") or {}).get("schema") or {}).get("fields") or ():
            self._note(place, schema_field["name"])
        return place

    def _note(self, place: Place, column: str) -> None:
        known = self.columns.setdefault(place, [])
        if column not in known:
            known.append(column)

    def find(self, text: str, column: str | None = None) -> list[Place]:
        """The places of that name: a dataset by its name or the end of it, then optionally `.column`."""
        if column is not None:
            return [
                Place(p.namespace, p.name, column) for p in self._called(text) if column in self.columns[p]
            ]
        if places := self._called(text):
            return places
        at = len(text)
        # A column of a list has a dot in its name, so has a dataset.
        while (at := text.rfind(".", 0, at)) > 0:
            if places := self.find(text[:at], text[at + 1 :]):
                return places
        return []

    def _called(self, text: str) -> list[Place]:
        exact = [p for p in self.columns if text in (p.name, f"{p.namespace}/{p.name}")]
        return sorted(exact or [p for p in self.columns if p.name.endswith((f".{text}", f"/{text}"))])

    def trace(self, place: Place, direction: Direction) -> Step:
        """The tree of all that it comes from, or of all that comes from it. An indirect edge ends a branch."""
        up = direction == "upstream"
        near: dict[Place, list[tuple[Place, Edge]]] = {}
        for edge in self.edges:
            here, there = (edge.target, edge.source) if up else (edge.source, edge.target)
            near.setdefault(here, []).append((there, edge))
        # Of one place they are all datasets or all columns.
        for neighbours in near.values():
            neighbours.sort(key=lambda one: (not one[1].is_direct, one[0], one[1].job))
        return _step(near, place, None, (place,))


def _step(
    near: Mapping[Place, Sequence[tuple[Place, Edge]]],
    place: Place,
    edge: Edge | None,
    way: tuple[Place, ...],
) -> Step:
    following = near.get(place, ()) if edge is None or edge.is_direct else ()
    transformations = () if edge is None else edge.transformations
    return asdict(place) | {
        "job": None if edge is None else edge.job,
        "transformations": [
            {"type": kind, "subtype": subtype, "description": description}
            for kind, subtype, description in transformations
        ],
        "next": [_step(near, there, to, (*way, there)) for there, to in following if there not in way],
    }


def _transformations(one: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for each in one.get("transformations") or ():
        yield str(each["type"]), str(each.get("subtype") or ""), str(each.get("description") or "")
