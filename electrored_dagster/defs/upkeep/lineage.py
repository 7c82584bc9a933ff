"""Emits the end of Dagster's own runs as lineage, which closes what a killed run left open."""

from __future__ import annotations

import dagster as dg

from electrored_dagster.openlineage import ENDS, emit_end, server_emitter

# Not urgent: a run takes seconds to start.
INTERVAL_SECONDS = 30


def _sensor(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=f"tell_lineage_of_{status.value.lower()}",
        run_status=status,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Emits OpenLineage events of finished runs, and ends what they left open.",
    )
    def emit(context: dg.RunStatusSensorContext) -> None:
        record = context.instance.get_run_record_by_id(context.dagster_run.run_id)
        if record is not None:
            emit_end(server_emitter(), context.instance, record)

    return emit


@dg.definitions
def sensors() -> dg.Definitions:
    return dg.Definitions(sensors=[_sensor(status) for status in ENDS])
