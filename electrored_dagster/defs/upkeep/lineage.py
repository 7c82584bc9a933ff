"""Tells lineage of Dagster's own runs when they are over; so what a killed one left open is closed too."""

from __future__ import annotations

import dagster as dg

from electrored_dagster.openlineage import ENDS, of_server, tell_end

# A run costs seconds to start; nobody waits to read that it is over.
INTERVAL_SECONDS = 30


def _sensor(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=f"tell_lineage_of_{status.value.lower()}",
        run_status=status,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of runs that are over as OpenLineage events, and ends what they left open.",
    )
    def tell(context: dg.RunStatusSensorContext) -> None:
        record = context.instance.get_run_record_by_id(context.dagster_run.run_id)
        if record is not None:
            tell_end(of_server(), context.instance, record)

    return tell


@dg.definitions
def sensors() -> dg.Definitions:
    return dg.Definitions(sensors=[_sensor(status) for status in ENDS])
