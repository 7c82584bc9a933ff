"""Looks at the platform from outside, every few seconds, and serves what it saw as metrics.

A process of its own, because who watches must not go down with what is watched, and because some of it is done by
runs that are over before Prometheus could ask them. What was not answered is not shown: `electrored_look_up` says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings, ObserverSettings
from kafka_client.clients import admin
from observability import logs
from observability.supervision import reason
from observability.waits import WAITS, On
from observer import probes
from observer.probes import Sample

# A look costs some ten milliseconds; Prometheus asks every 15 s.
LOOK_SECONDS = 5.0
# A broker that lives answers in milliseconds.
PING_SECONDS = 5.0
# A database that is cut off shall not stop the looks at the others for long.
CONNECT = {"connect_timeout": 3, "options": "-c statement_timeout=5000"}

HELP = {
    "electrored_look_up": "1 if the last look got its answer",
    "electrored_look_seconds": "How long the last look took",
    "electrored_look_timestamp_seconds": "When the observer last looked, answered or not",
    "electrored_source_records_total": "Events and refusals that a source has given a number",
    "electrored_source_frontier_timestamp_seconds": "Every fact that the source recorded up to here is in the log",
    "electrored_source_first_reading_active": "1 until a source was read to its end once; before that no window closes",
    "electrored_csv_files": "Files in the ledger, by state",
    "electrored_csv_in_vain_files": "Files that were taken and of which every row was refused",
    "electrored_dead_letters_total": "Dead letters by origin and what is wrong: since the start, and 100,000 older",
    "electrored_unreadable_records_total": "Records that are none of their topic's, skipped by the observer",
    "electrored_group_lag_offsets": "The same from outside: offsets between what a group has committed and the end",
    "electrored_topic_not_kept": "1 for a topic's setting that loses or falsifies records; beginning: some are gone",
    "electrored_active_generation": "Number of the active generation",
    "electrored_sales_in_several_sources": "Sale ids that count in more than one source",
    "electrored_negative_groups": "Groups of the active generation whose count is below 0: a source is broken",
    "electrored_future_sales": "Sales that are dated more than an hour from now; each is counted in its own window",
    "electrored_zone_rules_changed": "1 if the active generation's zone has other rules by now than it was made with",
    "electrored_results_watermark_timestamp_seconds": "All recorded up to here is in the rows; at first, its beginning",
    "electrored_generation_since_timestamp_seconds": "Since when a generation is in its state",
    "electrored_runs_last_hour": "Runs of Dagster that ended in the last hour, by job and outcome",
    "electrored_nightly_failed": "1 if the last run of a job of every night did not succeed",
    "electrored_nightly_success_timestamp_seconds": "When a nightly job last succeeded; at first, Dagster's first run",
    "electrored_check_failed": "1 if an asset check failed when it was last evaluated",
    "electrored_csv_inbox_files": "Files that wait in the inbox",
    "electrored_csv_inbox_oldest_age_seconds": "How long the oldest file has been waiting",
    "electrored_csv_inbox_unrecognised_files": "Files in the inbox and below it whose names are not taken",
    "electrored_slot_wal_status": "1 for what PostgreSQL says of the slot, and why it is lost; missing: there is none",
    "electrored_slot_active": "1 if capture reads the replication slot",
    "electrored_slot_retained_bytes": "WAL that the replication slot keeps on the disk of the sales database",
    "electrored_lineage_outbox_events": "OpenLineage events in the folder of a process that wait for the backend",
    "electrored_disk_free_bytes": "Free on the disk of the state folder",
    "electrored_disk_size_bytes": "Size of the disk of the state folder",
}

# Whom a look asks, where that is one server.
SERVERS: dict[str, On] = {
    "kafka": "kafka",
    "topics": "kafka",
    "results": "postgres",
    "slot": "postgres",
    "dagster": "postgres",
}

Look = Callable[[], Iterable[Sample]]

_log = logs.get(__name__)


class Observer(Collector):
    """Each look in a thread of its own, so that one that hangs holds up no other."""

    def __init__(self, looks: dict[str, Look]) -> None:
        self._looks = looks
        self._seen: dict[str, list[Sample]] = {}
        self._said: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        for name in self._looks:
            # A look that waits for an answer is not waited for at the end.
            threading.Thread(target=self._keep_looking, args=(name, stop), name=name, daemon=True).start()
        stop.wait()

    def _keep_looking(self, name: str, stop: threading.Event) -> None:
        while not stop.is_set():
            self.look(name)
            stop.wait(LOOK_SECONDS)

    def look(self, name: str) -> None:
        """Look once. What got no answer shows nothing but that."""
        began = time.perf_counter()
        labels = {"at": name}
        samples: list[Sample] = []
        try:
            samples = list(self._looks[name]())
            failed = ""
        # Whatever it is: a look that was given up would be missed by nobody, one that fails is an alert.
        except Exception as error:
            failed = reason(error)
        if failed and failed != self._said.get(name):
            _log.warning("a look got no answer", at=name, reason=failed)
        self._said[name] = failed
        WAITS.turn(f"look at {name}")
        if (server := SERVERS.get(name)) is not None:
            if failed:
                WAITS.begin(server, f"the look at {name} got no answer: {failed}", name)
            else:
                WAITS.end(server, name)
        samples += [
            Sample("electrored_look_up", float(not failed), labels),
            Sample("electrored_look_seconds", time.perf_counter() - began, labels),
            Sample("electrored_look_timestamp_seconds", time.time(), labels),
        ]
        self._seen[name] = samples

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for samples in list(self._seen.values()):
            for sample in samples:
                family = families.get(sample.name)
                if family is None:
                    families[sample.name] = family = _family(sample)
                family.add_metric(list(sample.labels.values()), sample.value)  # type: ignore[attr-defined]
        return iter(families.values())


def _family(sample: Sample) -> Metric:
    kind = CounterMetricFamily if sample.name.endswith("_total") else GaugeMetricFamily
    return kind(sample.name, HELP[sample.name], labels=list(sample.labels))


def observer(kafka: KafkaSettings, settings: ObserverSettings) -> Observer:
    """What there is to look at, by the settings."""
    results = _engine(settings.results_db_url.get_secret_value())
    client = admin(kafka)
    ledger = probes.Ledger(kafka)

    def broker() -> Iterator[Sample]:
        client.list_topics(timeout=PING_SECONDS)
        return iter(())

    chosen: dict[str, Look] = {
        "kafka": broker,
        "ledger": ledger.look,
        "groups": lambda: probes.of_kafka(kafka, results),
        "topics": lambda: probes.of_topics(kafka, results),
        "results": lambda: probes.of_results(results),
        "totals": lambda: probes.of_totals(results),
    }
    if settings.sales_db_url is not None:
        sales = _engine(settings.sales_db_url.get_secret_value())
        chosen["slot"] = lambda: probes.of_slot(sales, settings.sales_slot)
    if settings.dagster_db_url is not None:
        dagster = _engine(settings.dagster_db_url.get_secret_value())
        chosen["dagster"] = lambda: probes.of_dagster(dagster)
    if settings.csv_inbox is not None:
        chosen["inbox"] = probes.Inbox(settings.csv_inbox).look
    if settings.lineage_dir is not None:
        outboxes = settings.lineage_dir
        chosen["lineage"] = lambda: probes.of_lineage(outboxes)
    if settings.state_dir is not None:
        folder = settings.state_dir
        chosen["disk"] = lambda: probes.of_disk(folder)
    return Observer(chosen)


def _engine(url: str) -> Engine:
    # A look every few seconds is no reason to keep a connection.
    return create_engine(url, poolclass=NullPool, connect_args=CONNECT)
