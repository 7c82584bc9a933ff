"""Watches every asset: once a minute, and an event only for what changed."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from electrored_dagster.defs.generations.replaying import WINDOWS
from electrored_dagster.defs.instance import Platform
from electrored_dagster.observations import changed
from electrored_dagster.openlineage import of_server, tell_checks

INTERVAL_SECONDS = 60


Moved = dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest


def _moved(
    windows: dg.DynamicPartitionsDefinition, instance: dg.DagsterInstance, now: list[str]
) -> list[Moved]:
    """From the partitions that Dagster knows to the windows that there are now. None of these: it stays."""
    known = set(windows.get_partition_keys(dynamic_partitions_store=instance))
    begun, gone = [day for day in now if day not in known], sorted(known.difference(now))
    moved: list[Moved] = []
    if begun:
        moved.append(windows.build_add_request(begun))
    if now and gone:
        moved.append(windows.build_delete_request(gone))
    return moved


@dg.sensor(minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def observe_platform(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.SensorResult:
    """Reports offsets, lag and watermarks of the platform's topics and results, and windows that began.

    Starts no run.
    """
    events, cursor = changed(platform.standing(), context.cursor, datetime.now(UTC))
    checks = [event for event in events if isinstance(event, dg.AssetCheckEvaluation)]
    tell_checks(of_server(), observe_platform.name, checks)
    requests = [
        request
        for pipeline, windows in WINDOWS.items()
        for request in _moved(windows, context.instance, platform.windows(pipeline))
    ]
    if not events and not requests:
        return dg.SensorResult(skip_reason="nothing changed", cursor=cursor)
    return dg.SensorResult(asset_events=events, dynamic_partitions_requests=requests, cursor=cursor)
