"""Jobs and runs → OpenLineage events, built of openlineage-python's classes and facets and one custom facet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import attr
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    RunFacet,
    column_lineage_dataset,
    data_quality_assertions_dataset,
    datasource_dataset,
    error_message_run,
    job_type_job,
    nominal_time_run,
    output_statistics_output_dataset,
    parent_run,
    schema_dataset,
    set_producer,
    source_code_location_job,
)

from contracts.datasets import Dataset
from lineage import model
from lineage.model import InputField
from lineage.run import FACET, Naming, RunOf
from observability import logs
from observability.progress_report import ProgressReport

PRODUCER = f"urn:electrored:{version('electrored')}"
FACET_SCHEMA = (
    "urn:electrored:facets:1-0-0:ElectroRedWatermarkRunFacet.json#/$defs/ElectroRedWatermarkRunFacet"
)
# Of an error: enough to identify it.
MOST_CHARACTERS = 500

set_producer(PRODUCER)


class EventRefused(Exception):
    """A backend would refuse the same event again."""


@attr.define
class WatermarkFacet(RunFacet):
    """Progress of a run; see contracts/schemas/ElectroRedWatermarkRunFacet.json."""

    generation: str | None = attr.field(default=None)
    watermark: str | None = attr.field(default=None)
    counts: dict[str, dict[str, int]] | None = attr.field(default=None)
    checkpoints: dict[str, dict[str, int]] | None = attr.field(default=None)

    @staticmethod
    def _get_schema() -> str:
        return FACET_SCHEMA


def event(
    naming: Naming, run: RunOf, job: model.Job, state: str, at: datetime, report: ProgressReport | None = None
) -> RunEvent:
    """The event of a run at one moment, inputs and outputs with all their columns."""
    report = report or ProgressReport()
    return RunEvent(
        eventType=RunState(state),
        eventTime=_moment(at),
        run=Run(runId=run.id, facets=_run_facets(run, job, report)),
        job=Job(namespace=naming.namespace, name=job.name, facets=_job_facets(naming, job)),
        inputs=[
            InputDataset(
                *naming.places.name(read.dataset),
                facets=_described(naming, read.dataset, read.schema),
                inputFacets=_asserted(report, read.dataset),
            )
            for read in job.inputs
            if naming.places.has(read.dataset)
        ],
        outputs=[
            OutputDataset(
                *naming.places.name(written.dataset),
                facets=_described(naming, written.dataset, written.schema) | _columns(naming, written),
                outputFacets=_counted(report, written.dataset),
            )
            for written in job.outputs
            if naming.places.has(written.dataset)
        ],
        producer=PRODUCER,
    )


def restored(text: str) -> RunEvent:
    """The event from its JSON; its facets stay as they were written. Raises EventRefused if it is no event."""
    try:
        event = json.loads(text)
        run = event["run"]
        facets: dict[str, Any] = dict(run.get("facets", {}))
        if (parent := facets.get("parent")) is not None:
            # The Kafka transport derives an event's key from it.
            facets["parent"] = parent_run.ParentRunFacet(
                parent_run.Run(parent["run"]["runId"]),
                parent_run.Job(parent["job"]["namespace"], parent["job"]["name"]),
                producer=parent["_producer"],
            )
        return RunEvent(
            eventType=RunState(event["eventType"]),
            eventTime=event["eventTime"],
            run=Run(run["runId"], facets),
            job=Job(**event["job"]),
            inputs=[InputDataset(**dataset) for dataset in event.get("inputs", ())],
            outputs=[OutputDataset(**dataset) for dataset in event.get("outputs", ())],
            producer=event["producer"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EventRefused(f"a row of the outbox is no event: {error!r}") from error


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _run_facets(run: RunOf, job: model.Job, report: ProgressReport) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if job.generation or report.watermark or report.counts or report.checkpoints:
        facets[FACET] = WatermarkFacet(
            generation=job.generation,
            watermark=None if report.watermark is None else _moment(report.watermark),
            counts={step: dict(counts) for step, counts in report.counts.items()} or None,
            checkpoints={
                step: {str(partition): offset for partition, offset in offsets.items()}
                for step, offsets in report.checkpoints.items()
            }
            or None,
        )
    if run.parent is not None:
        parent = run.parent
        facets["parent"] = parent_run.ParentRunFacet(
            parent_run.Run(parent.run_id), parent_run.Job(parent.namespace, parent.name)
        )
    if run.nominal is not None:
        start, end = run.nominal
        facets["nominalTime"] = nominal_time_run.NominalTimeRunFacet(
            _moment(start), None if end is None else _moment(end)
        )
    if report.error is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            _error_message(report.error), "python"
        )
    return facets


def _error_message(error: BaseException | str) -> str:
    """The first line of an error, passwords masked; later lines may quote statements and values."""
    text = (str(error).strip() or repr(error)).split("\n", 1)[0]
    return logs.mask(text)[:MOST_CHARACTERS]


def _job_facets(naming: Naming, job: model.Job) -> dict[str, Any]:
    base = naming.source_url.rstrip("/") + "/" if naming.source_url else "urn:electrored:code:"
    if not job.code:
        return {}
    return {
        "jobType": job_type_job.JobTypeJobFacet(
            processingType=job.processing, integration="ELECTRORED", jobType="JOB"
        ),
        "sourceCodeLocation": source_code_location_job.SourceCodeLocationJobFacet(
            type="git", url=f"{base}{job.code}", path=job.code
        ),
    }


def _described(naming: Naming, dataset: Dataset, schema: Sequence[model.Column]) -> dict[str, Any]:
    namespace, _ = naming.places.name(dataset)
    uri = namespace if ":" in namespace else f"{namespace}:"
    facets: dict[str, Any] = {
        "dataSource": datasource_dataset.DatasourceDatasetFacet(name=dataset.system, uri=uri)
    }
    if schema:
        fields = [
            schema_dataset.SchemaDatasetFacetFields(name=column.name, type=column.type) for column in schema
        ]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
    return facets


def _columns(naming: Naming, output: model.OutputDataset) -> dict[str, Any]:
    fields = {
        name: column_lineage_dataset.Fields(inputFields=_inputs(naming, origins))
        for name, origins in output.columns.items()
    }
    if not fields and not output.whole:
        return {}
    return {
        "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet(
            fields=fields, dataset=_inputs(naming, output.whole)
        )
    }


def _inputs(naming: Naming, origins: Sequence[InputField]) -> list[column_lineage_dataset.InputField]:
    """One for each column, with all its transformations."""
    grouped: dict[tuple[Dataset, str], list[InputField]] = {}
    for origin in origins:
        if naming.places.has(origin.dataset):
            grouped.setdefault((origin.dataset, origin.column), []).append(origin)
    return [
        column_lineage_dataset.InputField(
            *naming.places.name(dataset),
            field=column,
            transformations=[
                column_lineage_dataset.Transformation(
                    type=origin.kind.value[0],
                    subtype=origin.kind.value[1],
                    description=origin.description,
                    masking=False,
                )
                for origin in same
            ],
        )
        for (dataset, column), same in grouped.items()
    ]


def _asserted(report: ProgressReport, dataset: Dataset) -> dict[str, Any]:
    assertions = report.assertions.get(dataset)
    if not assertions:
        return {}
    facet = data_quality_assertions_dataset
    return {
        "dataQualityAssertions": facet.DataQualityAssertionsDatasetFacet(
            assertions=[facet.Assertion(assertion=name, success=held) for name, held in assertions]
        )
    }


def _counted(report: ProgressReport, dataset: Dataset) -> dict[str, Any]:
    rows = report.rows.get(dataset)
    if rows is None:
        return {}
    return {
        "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
    }
