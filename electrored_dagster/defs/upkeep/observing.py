"""Watches every asset: once a minute, and an event only for what changed."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from electrored_dagster.defs.generations.replaying import WINDOWS
from electrored_dagster.defs.instance import Platform
from electrored_dagster.observations import changed
from electrored_dagster.openlineage import emit_checks, server_emitter

INTERVAL_SECONDS = 60


PartitionsRequest = dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest


def _partition_requests(
    windows: dg.DynamicPartitionsDefinition, instance: dg.DagsterInstance, now: list[str]
) -> list[PartitionsRequest]:
    """Requests that bring Dagster's partitions to the windows of now; no deletions without any window."""
    known = set(windows.get_partition_keys(dynamic_partitions_store=instance))
    begun, gone = [day for day in now if day not in known], sorted(known.difference(now))
    requests: list[PartitionsRequest] = []
    if begun:
        requests.append(windows.build_add_request(begun))
    if now and gone:
        requests.append(windows.build_delete_request(gone))
    return requests


@dg.sensor(minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def observe_platform(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.SensorResult:
    """Reports offsets, lag and watermarks of the platform's topics and results, and windows that began.

    Starts no run.
    """
    events, cursor = changed(platform.standing(), context.cursor, datetime.now(UTC))
    checks = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
    emit_checks(server_emitter(), observe_platform.name, checks)
    requests = [
        request
        for pipeline, windows in WINDOWS.items()
        for request in _partition_requests(windows, context.instance, platform.windows(pipeline))
    ]
    if not events and not requests:
        return dg.SensorResult(skip_reason="nothing changed", cursor=cursor)
    return dg.SensorResult(asset_events=events, dynamic_partitions_requests=requests, cursor=cursor)
