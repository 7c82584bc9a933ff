"""What assets, sensors and jobs are given: the platform's addresses, read from the environment when used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from sqlalchemy import Engine, NullPool, create_engine

from contracts.settings import KafkaSettings, ResultsDbSettings
from observability.standing import Overlap, Standing, overlap, take


class Platform:
    """Kafka and the results database, as any process of ours reaches them."""

    def standing(self) -> Standing:
        """One reading of where everything stands."""
        with self._results() as results:
            return take(KafkaSettings(), results)

    def overlap(self) -> Overlap:
        """Sale ids that several sources have."""
        with self._results() as results:
            return overlap(results)

    @contextmanager
    def _results(self) -> Iterator[Engine]:
        url = ResultsDbSettings().results_db_url.get_secret_value()
        # One use a minute: no connection stays open. A reading that takes 10 s is no observation any more.
        options = {"connect_timeout": 5, "options": "-c statement_timeout=10000"}
        engine = create_engine(url, poolclass=NullPool, connect_args=options)
        try:
            yield engine
        finally:
            engine.dispose()


@dg.definitions
def instance() -> dg.Definitions:
    return dg.Definitions(resources={"platform": Platform()}, executor=dg.in_process_executor)
