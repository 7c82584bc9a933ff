"""Every event that is emitted is valid, whichever job it is of."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from openlineage.client.serde import Serde

from lineage.emitter import ABORT, COMPLETE, FAIL, RUNNING, START
from lineage.events import restored
from lineage.model import Job
from lineage.run import FACET
from observability.progress_report import ProgressReport
from sources import lineage as of_sources
from streaming import lineage as of_streaming
from streaming.pipelines import PIPELINES
from tests.support.lineage_events import JOBS, PLACES, REPORT, run_event
from tests.support.openlineage import check, custom_schema


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("state", [START, RUNNING, COMPLETE, FAIL, ABORT])
def test_every_event_is_made_of_the_spec_s_own_fields(job: Job, state: str) -> None:
    report = ProgressReport(error=ValueError("it broke")) if state in (FAIL, ABORT) else REPORT
    made = run_event(job, state, report)
    check(made)
    assert (FAIL in state or ABORT in state) == ("errorMessage" in made["run"]["facets"])


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_every_dataset_has_its_columns_with_types(job: Job) -> None:
    made = run_event(job, START, REPORT)
    for found in (*made["inputs"], *made["outputs"]):
        fields = found["facets"]["schema"]["fields"]
        assert fields
        assert all(field.get("type") for field in fields), found["name"]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_job_s_code_is_a_file_of_this_repository(job: Job) -> None:
    path = run_event(job, START, REPORT)["job"]["facets"]["sourceCodeLocation"]["path"]
    assert (Path(__file__).parents[3] / path).is_file()


def test_the_custom_facet_s_schema_refuses_what_it_does_not_name() -> None:
    worker = of_streaming.worker(next(iter(PIPELINES.values())), 1)
    facets = run_event(worker, RUNNING, REPORT)["run"]["facets"]
    for wrong in ({"more": 1}, {"generation": "top"}, {"counts": {"combine": {"events": -1}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**facets, FACET: {**facets[FACET], **wrong}}, custom_schema())


def test_what_waits_as_json_is_the_event_that_was_told() -> None:
    made = run_event(of_sources.csv(), COMPLETE, REPORT)
    assert json.loads(Serde.to_json(restored(json.dumps(made)))) == made


def test_no_secret_is_in_an_event() -> None:
    assert not any("secret" in json.dumps(run_event(job, RUNNING, REPORT)) for job in JOBS)


def test_a_dataset_is_named_by_the_rules() -> None:
    inputs = [each.dataset for job in JOBS for each in job.inputs]
    outputs = [each.dataset for job in JOBS for each in job.outputs]
    names = {PLACES.name(dataset) for dataset in inputs + outputs}
    assert {
        ("kafka://broker-1:9092", "sales-events"),
        ("kafka://broker-1:9092", "top-sales-by-city.g1.state"),
        ("postgres://shop:5432", "sales.public.sales"),
        ("postgres://db:5433", "results.public.top_sales_by_city"),
        ("file", "/data/inbox"),
        ("http://pay:8080", "payments"),
    } <= names
