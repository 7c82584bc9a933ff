"""Probes of the observer: Kafka's topics, the results database, Dagster's database, folders.

A probe returns samples, and raises if it gets no answer. It changes nothing, and its cost does not grow with the sales.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select, text

from contracts.inbox import listing, unrecognised_reason
from contracts.settings import KafkaSettings
from contracts.tables import LIVE, generations
from contracts.times import EPOCH
from contracts.topics import DEAD_LETTERS, PUBLIC, SOURCE_POSITIONS, GenerationTopics
from kafka_client import topic_settings
from kafka_client.clients import admin
from kafka_client.tail import Tail
from lineage import outbox
from observability.waits import WAITS
from observer import platform_status

# Age of the ended runs that are counted.
RUNS_SECONDS = 3600
# Reasons of dead letters may quote the record; as labels they are cut to the part that recurs.
REASON_CHARACTERS = 60
MOST_REASONS = 50
# So many of the newest dead letters are read at a start and deduplicated: a second and 15 MB, however many there are.
MOST_LETTERS = 100_000
# Prefix of a source's reason: half of a change, line or page.
_PLACE = re.compile(r"^(?:sale|reversal|line \d+|behind cursor '[^']*'): ")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|[:(].*|\d+")


@dataclass(frozen=True)
class Sample:
    """One value of a metric, with its labels."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class Ledger:
    """Positions of the sources, their files by state, and dead letters by reason, from their topics."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._tails: tuple[Tail, Tail] | None = None
        self._sources: dict[str, dict[str, Any]] = {}
        # State by key; and the keys of files all of whose rows were refused.
        self._files: dict[bytes, str] = {}
        self._in_vain: set[bytes] = set()
        # Hashes of the newest keys only: there may be many.
        self._refused: OrderedDict[int, None] = OrderedDict()
        self._dead: Counter[tuple[str, str]] = Counter()

    def probe(self) -> Iterator[Sample]:
        if self._tails is None:
            self._tails = (
                Tail(self._settings, SOURCE_POSITIONS, "electrored.observer"),
                Tail(self._settings, DEAD_LETTERS, "electrored.observer", last=MOST_LETTERS),
            )
        positions, dead = self._tails
        for key, value in positions.read():
            self._note_position(key, value)
        for key, value in dead.read():
            self._note_dead(key, value)
        for source, position in self._sources.items():
            labels = {"source": source}
            yield Sample("electrored_source_records_total", position["next_seq"] - 1, labels)
            frontier = position["frontier"]
            # A frontier at the epoch: the source is being read for the first time.
            is_first = frontier is not None and frontier <= EPOCH
            yield Sample("electrored_source_first_reading_active", float(is_first), labels)
            if frontier is not None and not is_first:
                yield Sample("electrored_source_frontier_timestamp_seconds", frontier.timestamp(), labels)
        for topic, tail in ((SOURCE_POSITIONS, positions), (DEAD_LETTERS, dead)):
            yield Sample("electrored_unreadable_records_total", tail.unreadable, {"topic": topic.name})
        for state, count in Counter(self._files.values()).items():
            yield Sample("electrored_csv_files", count, {"state": state.lower()})
        yield Sample("electrored_csv_in_vain_files", len(self._in_vain))
        for (origin, reason), count in self._dead.items():
            yield Sample("electrored_dead_letters_total", count, {"origin": origin, "reason": reason})

    def close(self) -> None:
        for tail in self._tails or ():
            tail.close()
        self._tails = None

    def _note_position(self, key: bytes, value: object) -> None:
        if value is None:
            self._sources.pop(key.decode(), None)
            self._files.pop(key, None)
            self._in_vain.discard(key)
        if not isinstance(value, tuple):
            return
        kind, record = value
        if kind == "electrored.SourcePosition":
            self._sources[record["source"]] = record
        elif kind == "electrored.FileEntry":
            self._files[key] = record["state"]
            is_in_vain = record["state"] == "DONE" and _is_in_vain(json.loads(record["detail"]))
            (self._in_vain.add if is_in_vain else self._in_vain.discard)(key)

    def _note_dead(self, key: bytes, value: object) -> None:
        if not isinstance(value, dict) or hash(key) in self._refused:
            return
        self._refused[hash(key)] = None
        if len(self._refused) > MOST_LETTERS:
            self._refused.popitem(last=False)
        # A file's origin holds its name: the source is enough for a label.
        is_file = value["origin"].startswith("csv/") or value["origin"].endswith(".csv")
        origin = "csv" if is_file else value["origin"]
        place = origin, kind_of(value["reason"])
        if place not in self._dead and len(self._dead) >= MOST_REASONS:
            place = origin, "other"
        self._dead[place] += 1


def _is_in_vain(detail: Mapping[str, Any]) -> bool:
    counts = detail.get("counts", {})
    return bool(0 < counts.get("rows", 0) == counts.get("rejected", 0))


def kind_of(reason: str) -> str:
    """The part of a reason that recurs: without its place, quoted values, numbers and explanations."""
    return " ".join(_QUOTED.sub(" ", _PLACE.sub("", reason)).split())[:REASON_CHARACTERS] or "other"


def probe_kafka(settings: KafkaSettings, results: Engine) -> Iterator[Sample]:
    """Lags of the consumer groups of the active generations, from their committed offsets."""
    platform = platform_status.read_status(settings, results, positions=False)
    for pipeline, status in platform.pipelines.items():
        for (step, topic, partition), behind in status.lags.items():
            labels = {"pipeline": pipeline, "step": step, "topic": topic, "partition": str(partition)}
            yield Sample("electrored_group_lag_offsets", behind, labels)
        labels = {"pipeline": pipeline}
        yield Sample("electrored_active_generation", status.generation, labels)
        yield Sample("electrored_zone_rules_changed", float(status.is_outdated), labels)
    yield Sample("electrored_sales_in_several_sources", platform.overlap.count)
    yield Sample("electrored_future_sales", platform.future.count)


_LIVE = select(generations.c.pipeline, generations.c.number).where(generations.c.state.in_(LIVE))


def probe_topics(settings: KafkaSettings, results: Engine) -> Iterator[Sample]:
    """Deviations of topic settings from the catalogue, and lost records, of public and internal topics."""
    with results.connect() as connection:
        live = [GenerationTopics(row.pipeline, row.number) for row in connection.execute(_LIVE)]
    # Bound to a name: a client that goes out of scope cancels its requests.
    client = admin(settings)
    topics = [*PUBLIC, *topic_settings.existing(settings, [topic for names in live for topic in names.all])]
    for deviation in topic_settings.deviations(client, topics):
        labels = {"topic": deviation.topic.name, "setting": deviation.setting}
        yield Sample("electrored_topic_not_kept", 1, labels)
    for topic in sorted({loss.topic.name for loss in topic_settings.losses(client, topics)}):
        yield Sample("electrored_topic_not_kept", 1, {"topic": topic, "setting": "beginning"})


# Retired ones are history, and their number grows for ever.
_GENERATIONS = text(
    "SELECT pipeline, number, state, extract(epoch FROM CASE state WHEN 'building' THEN created_at "
    "WHEN 'candidate' THEN coalesce(candidate_at, created_at) WHEN 'standby' THEN coalesce(standby_at, created_at) "
    'ELSE coalesce(promoted_at, created_at) END) AS "since" '
    "FROM generations WHERE state <> 'retired' AND (state <> 'failed' OR retired_at IS NULL)"
)


def probe_results(results: Engine) -> Iterator[Sample]:
    """Watermarks as readers see them, and the generations that are not retired."""
    for pipeline, rows in platform_status.active_generations(results).items():
        for row in rows:
            partition = "none" if row.partition is None else str(row.partition)
            labels = {"pipeline": pipeline, "partition": partition}
            yield Sample(
                "electrored_results_watermark_timestamp_seconds", row.complete_to.timestamp(), labels
            )
    with results.connect() as connection:
        for row in connection.execute(_GENERATIONS):
            labels = {"pipeline": row.pipeline, "generation": str(row.number), "state": row.state}
            yield Sample("electrored_generation_since_timestamp_seconds", float(row.since), labels)


def probe_totals(results: Engine) -> Iterator[Sample]:
    """Groups below 0. A probe of its own: it waits for a lock on the totals."""
    for pipeline, negative in platform_status.negative_groups(results).items():
        yield Sample("electrored_negative_groups", negative.count, {"pipeline": pipeline})


# `invalidation_reason` exists since PostgreSQL 17; as JSON, because a missing column would be an error.
_SLOT = text(
    "SELECT active, wal_status, to_jsonb(s) ->> 'invalidation_reason' AS reason, "
    "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) AS retained "
    "FROM pg_replication_slots s WHERE slot_name = :slot"
)


def probe_slot(sales: Engine, slot: str) -> Iterator[Sample]:
    """WAL that the slot retains on the sales database's server, and whether the slot is still valid.

    Read here and not by capture, because it grows while capture is down.
    """
    labels = {"slot": slot}
    with sales.connect() as connection:
        row = connection.execute(_SLOT, {"slot": slot}).one_or_none()
    # A slot that was dropped is lost as well.
    status = "missing" if row is None else row.wal_status or "unknown"
    reason = "" if row is None else row.reason or ""
    yield Sample("electrored_slot_wal_status", 1, labels | {"status": status, "reason": reason})
    if row is not None:
        yield Sample("electrored_slot_active", float(row.active), labels)
        if row.retained is not None:
            yield Sample("electrored_slot_retained_bytes", float(row.retained), labels)


_RUNS = text(
    "SELECT pipeline_name AS job, lower(status) AS outcome, count(*) AS runs FROM runs "
    "WHERE end_time > extract(epoch FROM now()) - :seconds AND pipeline_name NOT LIKE '\\_\\_%' GROUP BY 1, 2"
)
# Jobs that Dagster runs every night: a missing run would go unnoticed.
NIGHTLY = ("check_replays", "prune_history", "retire_old_standbys")
# By Dagster's index of jobs: the newest runs of each, however many other runs there are.
_NIGHTLY = text(
    "SELECT job, ended.status, coalesce(succeeded.end_time, first.start_time) AS succeeded_at "
    "FROM unnest(:jobs) AS job "
    # One that never ran is late by what Dagster has been running.
    "JOIN (SELECT start_time FROM runs WHERE start_time IS NOT NULL ORDER BY id LIMIT 1) AS first ON true "
    "LEFT JOIN LATERAL (SELECT status FROM runs WHERE pipeline_name = job AND end_time IS NOT NULL "
    "ORDER BY id DESC LIMIT 1) AS ended ON true "
    "LEFT JOIN LATERAL (SELECT end_time FROM runs WHERE pipeline_name = job "
    "AND status = 'SUCCESS' ORDER BY id DESC LIMIT 1) AS succeeded ON true"
)
# The newest evaluation of each check; one that has only begun does not count.
_CHECKS = text(
    "SELECT DISTINCT ON (asset_key, check_name) asset_key, check_name, execution_status "
    "FROM asset_check_executions WHERE execution_status <> 'PLANNED' ORDER BY asset_key, check_name, id DESC"
)


def probe_dagster(dagster: Engine) -> Iterator[Sample]:
    """Outcomes of the runs of the last hour, of the last nightly runs, and of the last asset checks."""
    with dagster.connect() as connection:
        for row in connection.execute(_RUNS, {"seconds": RUNS_SECONDS}):
            yield Sample(
                "electrored_runs_last_hour", row.runs, {"dagster_job": row.job, "outcome": row.outcome}
            )
        for row in connection.execute(_NIGHTLY, {"jobs": list(NIGHTLY)}):
            labels = {"dagster_job": row.job}
            yield Sample("electrored_nightly_failed", float(row.status not in (None, "SUCCESS")), labels)
            yield Sample("electrored_nightly_success_timestamp_seconds", float(row.succeeded_at), labels)
        for row in connection.execute(_CHECKS):
            labels = {"asset": "/".join(re.findall(r'"([^"]+)"', row.asset_key)), "check": row.check_name}
            failed = row.execution_status != "SUCCEEDED"
            yield Sample("electrored_check_failed", float(failed), labels)


class Inbox:
    """Waiting files, the age of the oldest, and unrecognised names; opens no file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A file that is written to all the time looks new for ever.
        self._seen: dict[tuple[str, int], float] = {}

    def probe(self) -> Iterator[Sample]:
        now, since = time.time(), {}
        inbox = listing(self._folder)
        for name in inbox.files:
            try:
                status = (self._folder / name).lstat()
            except FileNotFoundError:
                # A run has just taken it.
                continue
            file = name, status.st_ino
            since[file] = min(self._seen.get(file, now), status.st_ctime)
        self._seen = since
        if inbox.unrecognised:
            name, *more = inbox.unrecognised
            others = f" (and {len(more)} more)" if more else ""
            WAITS.begin("inbox", unrecognised_reason(os.fsencode(name).decode(errors="replace")) + others)
        else:
            WAITS.end("inbox")
        oldest = now - min(since.values()) if since else 0.0
        yield Sample("electrored_csv_inbox_files", len(since))
        yield Sample("electrored_csv_inbox_oldest_age_seconds", max(0.0, oldest))
        yield Sample("electrored_csv_inbox_unrecognised_files", len(inbox.unrecognised))


def probe_lineage(folder: Path) -> Iterator[Sample]:
    """Undelivered OpenLineage events of every process: Dagster's runs are not scraped."""
    for process, lane, count in outbox.waiting(folder):
        yield Sample("electrored_lineage_outbox_events", count, {"outbox": process, "lane": lane})


def probe_disk(folder: Path) -> Iterator[Sample]:
    usage = shutil.disk_usage(folder)
    yield Sample("electrored_disk_free_bytes", usage.free)
    yield Sample("electrored_disk_size_bytes", usage.total)
