"""Jobs and runs → OpenLineage events, of openlineage-python's own classes and facets; one custom facet of ours."""

from __future__ import annotations

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
# Enough to know what went wrong.
MOST_CHARACTERS = 500

set_producer(PRODUCER)


@attr.define
class WatermarkFacet(RunFacet):
    """How far a run has come; see contracts/schemas/ElectroRedWatermarkRunFacet.json."""

    generation: str | None = attr.field(default=None)
    watermark: str | None = attr.field(default=None)
    counts: dict[str, dict[str, int]] | None = attr.field(default=None)
    checkpoints: dict[str, dict[str, int]] | None = attr.field(default=None)

    @staticmethod
    def _get_schema() -> str:
        return FACET_SCHEMA


def event(
    naming: Naming, run: RunOf, job: model.Job, state: str, at: datetime, facts: ProgressReport | None = None
) -> RunEvent:
    """What is told of a run at one moment, inputs and outputs with all their columns."""
    facts = facts or ProgressReport()
    return RunEvent(
        eventType=RunState(state),
        eventTime=_moment(at),
        run=Run(runId=run.id, facets=_run_facets(run, job, facts)),
        job=Job(namespace=naming.namespace, name=job.name, facets=_job_facets(naming, job)),
        inputs=[
            InputDataset(
                *naming.places.name(found.dataset),
                facets=_described(naming, found.dataset, found.schema),
                inputFacets=_asserted(facts, found.dataset),
            )
            for found in job.inputs
            if naming.places.knows(found.dataset)
        ],
        outputs=[
            OutputDataset(
                *naming.places.name(found.dataset),
                facets=_described(naming, found.dataset, found.schema) | _columns(naming, found),
                outputFacets=_counted(facts, found.dataset),
            )
            for found in job.outputs
            if naming.places.knows(found.dataset)
        ],
        producer=PRODUCER,
    )


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _run_facets(run: RunOf, job: model.Job, facts: ProgressReport) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if job.generation or facts.watermark or facts.counts or facts.checkpoints:
        facets[FACET] = WatermarkFacet(
            generation=job.generation,
            watermark=None if facts.watermark is None else _moment(facts.watermark),
            counts={step: dict(found) for step, found in facts.counts.items()} or None,
            checkpoints={
                step: {str(partition): offset for partition, offset in found.items()}
                for step, found in facts.checkpoints.items()
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
    if facts.error is not None:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(_words(facts.error), "python")
    return facets


def _words(error: BaseException | str) -> str:
    """What went wrong, without what with: statements and values stand in later lines, and passwords are masked."""
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


def _columns(naming: Naming, made: model.OutputDataset) -> dict[str, Any]:
    fields = {
        name: column_lineage_dataset.Fields(inputFields=_inputs(naming, origins))
        for name, origins in made.columns.items()
    }
    if not fields and not made.whole:
        return {}
    return {
        "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet(
            fields=fields, dataset=_inputs(naming, made.whole)
        )
    }


def _inputs(naming: Naming, origins: Sequence[InputField]) -> list[column_lineage_dataset.InputField]:
    """One for each column, with all that is made of it."""
    grouped: dict[tuple[Dataset, str], list[InputField]] = {}
    for origin in origins:
        if naming.places.knows(origin.dataset):
            grouped.setdefault((origin.dataset, origin.column), []).append(origin)
    return [
        column_lineage_dataset.InputField(
            *naming.places.name(dataset),
            field=column,
            transformations=[
                column_lineage_dataset.Transformation(
                    type=found.kind.value[0],
                    subtype=found.kind.value[1],
                    description=found.said,
                    masking=False,
                )
                for found in same
            ],
        )
        for (dataset, column), same in grouped.items()
    ]


def _asserted(facts: ProgressReport, dataset: Dataset) -> dict[str, Any]:
    said = facts.assertions.get(dataset)
    if not said:
        return {}
    facet = data_quality_assertions_dataset
    return {
        "dataQualityAssertions": facet.DataQualityAssertionsDatasetFacet(
            assertions=[facet.Assertion(assertion=name, success=held) for name, held in said]
        )
    }


def _counted(facts: ProgressReport, dataset: Dataset) -> dict[str, Any]:
    rows = facts.rows.get(dataset)
    if rows is None:
        return {}
    return {
        "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
    }
