"""Property tests: no deadline per example, since the machine may be busy; the whole run has one."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pipelines", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("pipelines")
