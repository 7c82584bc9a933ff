"""Probes the platform from outside, every few seconds, and exports the samples as metrics.

A process of its own: it must not go down with what it monitors, and runs may end before Prometheus could scrape them. A
probe that fails exports no samples, and `electrored_look_up` is 0.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings, ObserverSettings
from kafka_client.clients import admin
from observability import logs
from observability.supervision import reason
from observability.waits import WAITS, On
from observer import probes
from observer.probes import Sample

# A probe costs some ten milliseconds; Prometheus scrapes every 15 s.
PROBE_SECONDS = 5.0
# A healthy broker answers in milliseconds.
PING_SECONDS = 5.0
# A database that cannot be reached must not delay the other probes for long.
CONNECT = {"connect_timeout": 3, "options": "-c statement_timeout=5000"}

HELP = {
    "electrored_look_up": "1 if the last probe succeeded",
    "electrored_look_seconds": "Duration of the last probe",
    "electrored_look_timestamp_seconds": "Time of the last probe, successful or not",
    "electrored_source_records_total": "Events and refused records that a source has numbered",
    "electrored_source_frontier_timestamp_seconds": "All that the source recorded up to this time is in the log",
    "electrored_source_first_reading_active": "1 until a source was read to its end once; before that no window closes",
    "electrored_csv_files": "Files in the ledger, by state",
    "electrored_csv_in_vain_files": "Files that were taken, all of whose rows were refused",
    "electrored_dead_letters_total": "Dead letters by origin and what is wrong: since the start, and 100,000 older",
    "electrored_unreadable_records_total": "Records that the observer skipped because they do not decode",
    "electrored_group_lag_offsets": "Consumer group lag in offsets, read from committed offsets",
    "electrored_topic_not_kept": "1 for a topic setting that loses or falsifies records; beginning: some were deleted",
    "electrored_active_generation": "Number of the active generation",
    "electrored_sales_in_several_sources": "Sale ids that several sources have",
    "electrored_negative_groups": "Groups of the active generation whose count is below 0: a source is broken",
    "electrored_future_sales": "Sales that are dated more than an hour from now; each is counted in its own window",
    "electrored_zone_rules_changed": "1 if the zone rules of the active generation differ from this machine's",
    "electrored_results_watermark_timestamp_seconds": "Watermark of the results; at first, the time of promotion",
    "electrored_generation_since_timestamp_seconds": "Since when a generation is in its state",
    "electrored_runs_last_hour": "Runs of Dagster that ended in the last hour, by job and outcome",
    "electrored_nightly_failed": "1 if the last run of a job of every night did not succeed",
    "electrored_nightly_success_timestamp_seconds": "When a nightly job last succeeded; at first, Dagster's first run",
    "electrored_check_failed": "1 if an asset check failed when it was last evaluated",
    "electrored_csv_inbox_files": "Files that wait in the inbox",
    "electrored_csv_inbox_oldest_age_seconds": "How long the oldest file has been waiting",
    "electrored_csv_inbox_unrecognised_files": "Files in the inbox and below it whose names are not taken",
    "electrored_slot_wal_status": "1 for the slot's wal_status and invalidation reason; missing: there is no slot",
    "electrored_slot_active": "1 if capture reads the replication slot",
    "electrored_slot_retained_bytes": "WAL bytes that the replication slot retains on the sales database's disk",
    "electrored_lineage_outbox_events": "OpenLineage events in the folder of a process that wait for the backend",
    "electrored_disk_free_bytes": "Free on the disk of the state folder",
    "electrored_disk_size_bytes": "Size of the disk of the state folder",
}

# The server that a probe depends on, where it is one.
SERVERS: dict[str, On] = {
    "kafka": "kafka",
    "topics": "kafka",
    "results": "postgres",
    "slot": "postgres",
    "dagster": "postgres",
}

Probe = Callable[[], Iterable[Sample]]

_log = logs.get(__name__)


class Observer(Collector):
    """Runs each probe in a thread of its own, so that one that hangs does not delay the others."""

    def __init__(self, probes: dict[str, Probe]) -> None:
        self._probes = probes
        self._samples: dict[str, list[Sample]] = {}
        self._failures: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Probe until `stop` is set."""
        for name in self._probes:
            # A daemon: a probe that hangs must not delay the end.
            threading.Thread(target=self._keep_probing, args=(name, stop), name=name, daemon=True).start()
        stop.wait()

    def _keep_probing(self, name: str, stop: threading.Event) -> None:
        while not stop.is_set():
            self.probe(name)
            stop.wait(PROBE_SECONDS)

    def probe(self, name: str) -> None:
        """Run the probe once. One that fails exports only its failure."""
        began = time.perf_counter()
        labels = {"at": name}
        samples: list[Sample] = []
        try:
            samples = list(self._probes[name]())
            failed = ""
        # Any error: a thread that ended would go unnoticed, a probe that fails is an alert.
        except Exception as error:
            failed = reason(error)
        if failed and failed != self._failures.get(name):
            _log.warning("a probe failed", at=name, reason=failed)
        self._failures[name] = failed
        WAITS.turn(f"probe of {name}")
        if (server := SERVERS.get(name)) is not None:
            if failed:
                WAITS.begin(server, f"the probe of {name} failed: {failed}", name)
            else:
                WAITS.end(server, name)
        samples += [
            Sample("electrored_look_up", float(not failed), labels),
            Sample("electrored_look_seconds", time.perf_counter() - began, labels),
            Sample("electrored_look_timestamp_seconds", time.time(), labels),
        ]
        self._samples[name] = samples

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for samples in list(self._samples.values()):
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
    """The observer with the probes that the settings allow."""
    results = _engine(settings.results_db_url)
    client = admin(kafka)

    def broker() -> Iterator[Sample]:
        client.list_topics(timeout=PING_SECONDS)
        return iter(())

    chosen: dict[str, Probe] = {
        "kafka": broker,
        "ledger": probes.Ledger(kafka).probe,
        "groups": partial(probes.probe_kafka, kafka, results),
        "topics": partial(probes.probe_topics, kafka, results),
        "results": partial(probes.probe_results, results),
        "totals": partial(probes.probe_totals, results),
    }
    if (url := settings.sales_db_url) is not None:
        chosen["slot"] = partial(probes.probe_slot, _engine(url), settings.sales_slot)
    if (url := settings.dagster_db_url) is not None:
        chosen["dagster"] = partial(probes.probe_dagster, _engine(url))
    if settings.csv_inbox is not None:
        chosen["inbox"] = probes.Inbox(settings.csv_inbox).probe
    if settings.lineage_dir is not None:
        chosen["lineage"] = partial(probes.probe_lineage, settings.lineage_dir)
    if settings.state_dir is not None:
        chosen["disk"] = partial(probes.probe_disk, settings.state_dir)
    return Observer(chosen)


def _engine(url: SecretStr) -> Engine:
    # A probe every few seconds is no reason to keep a connection.
    return create_engine(url.get_secret_value(), poolclass=NullPool, connect_args=CONNECT)
