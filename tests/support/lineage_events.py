"""Every job that there is, the events of its runs, and a backend that takes them."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde

from contracts import datasets
from contracts.datasets import Places
from contracts.settings import CsvSettings, KafkaSettings, ResultsDbSettings, SalesDbSettings, SoapSettings
from contracts.topics import SALES_EVENTS
from lineage.events import EventRefused, event
from lineage.model import Job
from lineage.run import Naming, Parent, RunOf
from observability.progress_report import ProgressReport
from sources import lineage as of_sources
from streaming import lineage as of_streaming
from streaming import view_columns as of_views
from streaming.pipelines import PIPELINES

PLACES = Places(
    KafkaSettings(kafka_bootstrap="broker-1:9092,broker-2:9092", schema_registry_url="http://registry"),
    SalesDbSettings.model_validate({"sales_db_url": "postgresql+psycopg2://u:secret@shop/sales"}),
    ResultsDbSettings.model_validate({"results_db_url": "postgresql+psycopg2://u:secret@db:5433/results"}),
    CsvSettings.model_validate({"csv_inbox": "/data/inbox"}),
    SoapSettings.model_validate(
        {
            "soap_wsdl": "http://u:secret@pay:8080/payments?wsdl",
            "soap_username": "u",
            "soap_password": "secret",
        }
    ),
)
NAMING = Naming("electrored", PLACES)
AT = datetime(2026, 11, 23, 9, tzinfo=UTC)
RUN_ID = "0192c7b7-2b0c-7a30-8f6e-2f4f0e0a0001"
JOBS: list[Job] = [
    of_sources.capture("public.sales"),
    of_sources.csv(),
    of_sources.soap(),
    of_sources.retraction(),
    *map(of_views.shown, datasets.view_names()),
    *(
        make(pipeline, 1)
        for pipeline in PIPELINES.values()
        for make in (of_streaming.worker, of_streaming.sink, of_streaming.publisher)
    ),
]
REPORT = ProgressReport(
    watermark=AT,
    counts={"combine": {"events": 5, "late": 1}},
    checkpoints={"combine": {0: 7}},
    rows={datasets.topic(SALES_EVENTS): 5},
    assertions={datasets.topic(SALES_EVENTS): [("sale_ids_in_both_sources", True)]},
)


class Backend:
    """Takes events, or not; `asked` is set at the first one, `came` at one of the awaited state."""

    def __init__(self, awaited: str = "", *, is_away: bool = False, refuses: str = "") -> None:
        self.events: list[Any] = []
        self.is_away, self._awaited, self._refuses = is_away, awaited, refuses
        self.asked, self.came = threading.Event(), threading.Event()

    def __call__(self, event: RunEvent) -> None:
        self.asked.set()
        if self.is_away:
            raise ConnectionError("away")
        if event.job.name == self._refuses:
            raise EventRefused("no")
        self.events.append(event)
        if self.states[-1] == self._awaited:
            self.came.set()

    @property
    def states(self) -> list[str]:
        return [event.eventType.value for event in self.events if event.eventType]


def run_event(job: Job, state: str, report: ProgressReport) -> dict[str, Any]:
    run = RunOf(RUN_ID, Parent("electrored", "csv_take", RUN_ID), (AT, AT))
    run_event: dict[str, Any] = json.loads(Serde.to_json(event(NAMING, run, job, state, AT, report)))
    return run_event
