"""Where a column comes from and what becomes of it, out of what the jobs said last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["upstream", "downstream"]


@dataclass(frozen=True, order=True)
class Place:
    """A dataset, or a column of one."""

    namespace: str
    name: str
    column: str | None = None


@dataclass(frozen=True)
class Edge:
    """What a job makes of one place at another; between datasets without transformations."""

    source: Place
    target: Place
    job: str
    transformations: tuple[tuple[str, str, str], ...] = ()

    @property
    def is_direct(self) -> bool:
        """Whether the value itself comes from there, and is not only decided by it."""
        return not self.transformations or any(found[0] == "DIRECT" for found in self.transformations)


@dataclass(frozen=True)
class Step:
    """A place on the way, what was made of it by which job, and how it goes on from there."""

    place: Place
    edge: Edge | None
    next: tuple[Step, ...] = ()


@dataclass
class Graph:
    """What is known of all jobs."""

    # By source, target and job: what is made of one at the other.
    _made: dict[tuple[Place, Place, str], dict[tuple[str, str, str], None]] = field(default_factory=dict)
    columns: dict[Place, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, jobs: Iterable[Mapping[str, Any]]) -> Graph:
        """From rows of `lineage_jobs`."""
        graph = cls()
        for job in jobs:
            # Whoever tells of its runs may tell what is shaped otherwise: that is no way that we know.
            with suppress(KeyError, TypeError, AttributeError):
                graph._add(job)
        return graph

    def _add(self, job: Mapping[str, Any]) -> None:
        inputs = [self._dataset(one) for one in job["inputs"]]
        for output in job["outputs"]:
            target = self._dataset(output)
            lineage = (output.get("facets") or {}).get("columnLineage") or {}
            fields: Mapping[str, Any] = lineage.get("fields", {})
            of_columns = [(column, one) for column, found in fields.items() for one in found["inputFields"]]
            # What decides over all rows decides over each column.
            of_columns += [(column, one) for one in lineage.get("dataset", ()) for column in fields]
            for column, one in of_columns:
                source = Place(one["namespace"], one["name"], one["field"])
                self._note(Place(one["namespace"], one["name"]), one["field"])
                self._note(target, column)
                to = Place(target.namespace, target.name, column)
                made = self._made.setdefault((source, to, job["name"]), {})
                made.update(dict.fromkeys(_transformations(one)))
            # A job that reads what it wrote itself goes from one to the other, as the columns say.
            for source in {Place(one["namespace"], one["name"]) for _, one in of_columns} or set(inputs):
                if source != target:
                    self._made.setdefault((source, target, job["name"]), {})

    @property
    def edges(self) -> Iterator[Edge]:
        for (source, target, job), made in self._made.items():
            yield Edge(source, target, job, tuple(made))

    def _dataset(self, dataset: Mapping[str, Any]) -> Place:
        place = Place(dataset["namespace"], dataset["name"])
        self.columns.setdefault(place, [])
        for found in ((dataset.get("facets") or {}).get("schema") or {}).get("fields") or ():
            self._note(place, found["name"])
        return place

    def _note(self, place: Place, column: str) -> None:
        known = self.columns.setdefault(place, [])
        if column not in known:
            known.append(column)

    def find(self, text: str, column: str | None = None) -> list[Place]:
        """The places that are called so: a dataset by its name or the end of it, then perhaps `.column`."""
        if column is not None:
            return [
                Place(p.namespace, p.name, column) for p in self._called(text) if column in self.columns[p]
            ]
        if found := self._called(text):
            return found
        at = len(text)
        # A column of a list has a dot in its name, so has a dataset.
        while (at := text.rfind(".", 0, at)) > 0:
            if found := self.find(text[:at], text[at + 1 :]):
                return found
        return []

    def _called(self, text: str) -> list[Place]:
        exact = [p for p in self.columns if text in (p.name, f"{p.namespace}/{p.name}")]
        return sorted(exact or [p for p in self.columns if p.name.endswith((f".{text}", f"/{text}"))])

    def trace(self, place: Place, direction: Direction) -> Step:
        """The way to all that it comes from, or to all that comes from it. What only decides over it ends a branch."""
        up = direction == "upstream"
        near: dict[Place, list[tuple[Place, Edge]]] = {}
        for edge in self.edges:
            here, there = (edge.target, edge.source) if up else (edge.source, edge.target)
            near.setdefault(here, []).append((there, edge))
        # Of one place they are all datasets or all columns.
        for found in near.values():
            found.sort(key=lambda one: (not one[1].is_direct, one[0], one[1].job))
        return Step(place, None, tuple(_steps(near, place, (place,))))


def _steps(
    near: Mapping[Place, Sequence[tuple[Place, Edge]]], place: Place, way: tuple[Place, ...]
) -> Iterator[Step]:
    for there, edge in near.get(place, ()):
        if there not in way:
            goes_on = edge.is_direct
            yield Step(there, edge, tuple(_steps(near, there, (*way, there))) if goes_on else ())


def _transformations(one: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for found in one.get("transformations") or ():
        yield str(found["type"]), str(found.get("subtype") or ""), str(found.get("description") or "")
