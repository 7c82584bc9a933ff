"""The resource of assets, sensors and jobs: the platform's addresses, read from the environment at each use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import dagster as dg
from sqlalchemy import Engine, NullPool, create_engine

from contracts.settings import KafkaSettings, ReplaySettings, ResultsDbSettings
from electrored_dagster.generations import replaying, window_days
from electrored_dagster.metadata import settings
from observer.platform_status import PlatformStatus, negative_groups, read_status

T = TypeVar("T")


class Platform:
    """Kafka and the results database."""

    def standing(self) -> PlatformStatus:
        """The platform's status now."""
        return self.ask(
            lambda results: replace(read_status(KafkaSettings(), results), negative=negative_groups(results))
        )

    def ask(self, question: Callable[[Engine], T]) -> T:
        """One of the observer's questions to the results database."""
        url = ResultsDbSettings().results_db_url.get_secret_value()
        # Used once a minute: no connection stays open. A reading of over 10 s is too old to report.
        options = {"connect_timeout": 5, "options": "-c statement_timeout=10000"}
        engine = create_engine(url, poolclass=NullPool, connect_args=options)
        try:
            return question(engine)
        finally:
            engine.dispose()

    def windows(self, pipeline: str) -> list[str]:
        """The windows that can be computed again, by their first day."""
        return self.ask(lambda results: window_days(results, pipeline, datetime.now(UTC)))

    def replaying(self, but: str) -> list[str]:
        """Pipelines with a replay that is building or a candidate, except those requested by `but`."""
        return self.ask(lambda results: replaying(results, but))


@dg.definitions
def instance() -> dg.Definitions:
    return dg.Definitions(resources={"platform": Platform()}, executor=_steps_in_processes())


def _steps_in_processes() -> dg.ExecutorDefinition:
    """For replays, whose steps are slices; jobs with one step name the in-process executor."""
    processes = {
        # A few at a time: live traffic shares the machine.
        "max_concurrent": settings(ReplaySettings).replay_processes,
        # What every step needs is imported once; 2 s less for each.
        "start_method": {"forkserver": {"preload_modules": ["electrored_dagster.definitions"]}},
    }
    return dg.multiprocess_executor.configured(processes)
