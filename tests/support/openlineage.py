"""Whether an event is valid: by the classes that were generated from the specification, and by our own schema.

With `--openlineage-spec FOLDER` (`spec/` of a clone of OpenLineage) by the specification's own schema files as well; no
package that could be installed has them.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import attr
import jsonschema
from openlineage.client import facet_v2
from openlineage.client.event_v2 import RunEvent
from referencing import Registry, Resource

from lineage.events import restored
from lineage.run import FACET

FACETS = {
    found._get_schema(): found
    for module in vars(facet_v2).values()
    if isinstance(module, types.ModuleType)
    for found in vars(module).values()
    if isinstance(found, type) and attr.has(found) and issubclass(found, facet_v2.BaseFacet)
}


@dataclass(frozen=True)
class Specification:
    """OpenLineage's schema files, each found by the `$id` that events and facets name: of that very version or not."""

    schemas: Registry[Any]

    @classmethod
    def read(cls, folder: Path) -> Specification:
        read = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.json")]
        found = [Resource.from_contents(schema) for schema in read if "$id" in schema and "$schema" in schema]
        assert found, f"{folder} has no schema files: expected is `spec/` of a clone of OpenLineage"
        return cls(Registry().with_resources((str(one.id()), one) for one in found))

    def hold(self, value: Any, named: str) -> None:
        kind = jsonschema.Draft202012Validator
        kind({"$ref": named}, registry=self.schemas, format_checker=kind.FORMAT_CHECKER).validate(value)


# Set once, by the option.
specification: Specification | None = None


def check(made: dict[str, Any]) -> None:
    """Raise unless the event is made of the specification's fields, and of facets that are what they name."""
    if specification is not None:
        specification.hold(made, made["schemaURL"])
        for name, facet in facets(made):
            if name != FACET:
                specification.hold(facet, facet["_schemaURL"])
    hold(made, RunEvent, "event")
    # The classes check formats themselves: timestamps, ids.
    restored(json.dumps(made))
    for name, facet in facets(made):
        if name != FACET:
            hold(facet, FACETS[facet["_schemaURL"]], name)
    jsonschema.validate(made["run"]["facets"], custom_schema(), cls=jsonschema.Draft202012Validator)


def custom_schema() -> Any:
    name = "ElectroRedWatermarkRunFacet.json"
    return json.loads(files("contracts.schemas").joinpath(name).read_text(encoding="utf-8"))


def facets(made: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from made["run"]["facets"].items()
    yield from made["job"]["facets"].items()
    for dataset in (*made["inputs"], *made["outputs"]):
        for kind in ("facets", "inputFacets", "outputFacets"):
            yield from dataset.get(kind, {}).items()


def hold(value: Any, kind: Any, where: str) -> None:
    """Hold a value against a class that was generated from the spec: its fields, what is required, their types."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and attr.has(kind):
        fields = {field.name: field for field in attr.fields(attr.resolve_types(kind))}
        assert set(value) <= set(fields), f"{where}: {set(value) - set(fields)} is not in the spec"
        for name, field in fields.items():
            if name in value and name not in ("facets", "inputFacets", "outputFacets"):
                hold(value[name], field.type, f"{where}.{name}")
            elif name not in value:
                assert field.default is not attr.NOTHING, f"{where}.{name} is missing"
    elif origin in (types.UnionType, typing.Union):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        hold(value, inner, where)
    elif origin is list:
        for number, one in enumerate(value):
            hold(one, arguments[0], f"{where}[{number}]")
    elif origin is dict:
        for name, one in value.items():
            hold(one, arguments[1], f"{where}.{name}")
    elif kind is not Any:
        expected = str if isinstance(kind, type) and issubclass(kind, str) else kind
        is_enum = isinstance(kind, type) and hasattr(kind, "__members__")
        assert value in kind.__members__ if is_enum else isinstance(value, expected), f"{where}: {value!r}"
