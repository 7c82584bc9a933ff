"""Watches every asset: once a minute, and an event only for what changed."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from electrored_dagster.defs.instance import Platform
from electrored_dagster.observations import changed

INTERVAL_SECONDS = 60


@dg.sensor(minimum_interval_seconds=INTERVAL_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def observe_platform(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.SensorResult:
    """Reports offsets, lag, watermarks and rows of the platform's topics and results. Starts no run."""
    events, cursor = changed(platform.standing(), context.cursor, datetime.now(UTC))
    if not events:
        return dg.SensorResult(skip_reason="nothing changed", cursor=cursor)
    return dg.SensorResult(asset_events=events, cursor=cursor)
