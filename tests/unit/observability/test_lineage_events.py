"""Every event that is told is a valid one, whichever job it tells of."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import attr
import jsonschema
import pytest
from openlineage.client import facet_v2
from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde

from observability.lineage.events import FACET
from observability.lineage.hops import Job
from observability.lineage.outbox import restored
from observability.lineage.runs import ABORT, COMPLETE, FAIL, RUNNING, START, Facts
from sources import lineage as of_sources
from streaming import lineage as of_streaming
from streaming.pipelines import PIPELINES
from tests.unit.observability.told import FACTS, JOBS, PLACES, told

FACETS = {
    found._get_schema(): found
    for module in vars(facet_v2).values()
    if isinstance(module, types.ModuleType)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, facet_v2.BaseFacet) and attr.has(found)
}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("state", [START, RUNNING, COMPLETE, FAIL, ABORT])
def test_every_event_is_made_of_the_spec_s_own_fields(job: Job, state: str) -> None:
    facts = Facts(error=ValueError("it broke")) if state in (FAIL, ABORT) else FACTS
    made = told(job, state, facts)
    hold(made, RunEvent, "event")
    for name, facet in facets(made):
        if name != FACET:
            hold(facet, FACETS[facet["_schemaURL"]], name)
    jsonschema.validate(made["run"]["facets"], custom_schema(), cls=jsonschema.Draft202012Validator)
    assert (FAIL in state or ABORT in state) == ("errorMessage" in made["run"]["facets"])


def test_the_custom_facet_s_schema_refuses_what_it_does_not_name() -> None:
    facets = told(of_streaming.worker(next(iter(PIPELINES.values())), 1), RUNNING, FACTS)["run"]["facets"]
    for wrong in ({"more": 1}, {"generation": "top"}, {"counts": {"combine": {"events": -1}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**facets, FACET: {**facets[FACET], **wrong}}, custom_schema())


def test_what_waits_as_json_is_the_event_that_was_told() -> None:
    made = told(of_sources.csv(), COMPLETE, FACTS)
    assert json.loads(Serde.to_json(restored(made))) == made


def test_no_secret_is_in_an_event() -> None:
    assert not any("secret" in json.dumps(told(job, RUNNING, FACTS)) for job in JOBS)


def test_a_dataset_is_named_by_the_rules() -> None:
    names = {PLACES.name(found.dataset) for job in JOBS for found in (*job.inputs, *job.outputs)}
    assert {
        ("kafka://broker-1:9092", "sales-events"),
        ("kafka://broker-1:9092", "top-sales-by-city.g1.state"),
        ("postgres://shop:5432", "sales.public.sales"),
        ("postgres://db:5433", "results.public.top_sales_by_city"),
        ("file", "/data/inbox"),
        ("http://pay:8080", "payments"),
    } <= names


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
