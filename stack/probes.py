"""Probes of running processes: does it answer, its progress and waits, the watermark of the results."""

from __future__ import annotations

import http.client
import json
import math
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL

from contracts.datasets import INPUTS
from contracts.topics import SALES_EVENTS
from stack.ports import LOOPBACK
from stack.postgres import connect

# All are on this machine; one that takes longer is not ready.
TIMEOUT_SECONDS = 3.0
# Dagster's daemons report every 30 s and count as dead after a minute and a half.
HEARTBEAT_SECONDS = 90


def http_ok(url: str) -> bool:
    """Whether a GET answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@dataclass(frozen=True)
class Flow:
    """The progress of a process: records since its start, and its lag; None for what it does not report.

    `waits` is what it waits for, the most serious first: `on`, `kind`, `detail`, `since` in seconds of the Unix epoch.
    """

    events: float | None
    lag: float | None
    lag_bytes: float | None
    read_at: float
    waits: list[dict[str, Any]]


def metrics_ok(port: int) -> bool:
    return http_ok(f"http://{LOOPBACK}:{port}/metrics")


def flow(port: int) -> Flow | None:
    """The flow that the process on this metrics port reports; None if it does not answer."""
    try:
        text = _get(port, "metrics")
        waits = json.loads(_get(port, "waits"))
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return None
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if math.isnan(sample.value):
                # A figure that is unknown now.
                continue
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return Flow(
        sums.get("electrored_events_total"),
        sums.get("electrored_flow_lag_offsets"),
        sums.get("electrored_lag_bytes"),
        time.monotonic(),
        waits,
    )


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/{path}", timeout=TIMEOUT_SECONDS) as answer:
        return str(answer.read().decode())


def watermark(results: URL) -> datetime | None:
    """The least watermark of the active generations that read nothing but sales, as readers see it.

    Pipelines with payments are left out: a poll moves them only every few minutes.

    The watermark passes change capture, Kafka, combine, merge and sink in band: when it moves, all of them work.
    None while any partition has none.
    """
    question = """
        select case when count(*) = count(watermark) then min(watermark) end
        from active_freshness where pipeline = any(%s)
    """
    streamed = [pipeline for pipeline, inputs in INPUTS.items() if inputs == (SALES_EVENTS,)]
    try:
        connection = connect(results)
    except psycopg2.OperationalError:
        return None
    try:
        cursor = connection.cursor()
        cursor.execute(question, (streamed,))
        row = cursor.fetchone()
        least: datetime | None = row[0] if row else None
        return least
    except psycopg2.errors.UndefinedTable:
        return None
    finally:
        connection.close()


def dagster_loaded(url: str) -> bool:
    """Whether Dagster's web server shows every code location: it answers before they are loaded."""
    query = (
        "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
    )
    asked = urllib.request.Request(
        f"{url}/graphql", json.dumps({"query": query}).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS) as answer:
            data = json.load(answer)["data"] or {"workspaceOrError": {}}
    except (urllib.error.URLError, OSError):
        return False
    entries = data["workspaceOrError"].get("locationEntries", [])
    shown = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries]
    return bool(shown) and all(kind == "RepositoryLocation" for kind in shown)


def dagster_daemons_alive(database: URL) -> bool:
    """Whether every daemon of Dagster has reported lately."""
    try:
        connection = connect(database)
    except psycopg2.OperationalError:
        return False
    try:
        cursor = connection.cursor()
        cursor.execute(
            "select count(*) > 0 and bool_and(timestamp > (now() at time zone 'utc') - make_interval(secs => %s))"
            " from daemon_heartbeats",
            (HEARTBEAT_SECONDS,),
        )
        row = cursor.fetchone()
        return bool(row and row[0])
    except psycopg2.errors.UndefinedTable:
        return False
    finally:
        connection.close()
