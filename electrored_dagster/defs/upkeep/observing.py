"""Watches every asset: once a minute, and an event only for what changed."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from electrored_dagster.defs.generations.replaying import SALESMAN_WINDOWS, WINDOWS
from electrored_dagster.defs.instance import Platform
from electrored_dagster.observations import changed
from electrored_dagster.telling import of_server, tell_checks

INTERVAL_SECONDS = 60


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
    known = set(context.instance.get_dynamic_partitions(SALESMAN_WINDOWS))
    begun = [day for day in platform.salesman_windows() if day not in known]
    requests = [WINDOWS.build_add_request(begun)] if begun else []
    if not events and not requests:
        return dg.SensorResult(skip_reason="nothing changed", cursor=cursor)
    return dg.SensorResult(asset_events=events, dynamic_partitions_requests=requests, cursor=cursor)
