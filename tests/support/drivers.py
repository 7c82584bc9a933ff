"""The test driver over top-sales-by-city."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streaming.engine.pipeline import Parameters
from streaming.pipelines import PIPELINES
from streaming.testing import Driver

CITY = PIPELINES[("top-sales-by-city", 1)]
GRACE = timedelta(hours=1)


def city_driver(**options: Any) -> Driver:
    return Driver(CITY, Parameters("UTC", GRACE, "1-day"), **options)
