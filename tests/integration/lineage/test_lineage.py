"""Lineage on a real Kafka and PostgreSQL: in order, kept while the backend is away, answered after a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, insert
from typer.testing import CliRunner

from contracts import datasets
from contracts.settings import (
    CsvSettings,
    KafkaSettings,
    LineageSettings,
    ResultsDbSettings,
)
from contracts.tables import generations
from contracts.topics import OPENLINEAGE_EVENTS, TOP_SALES_BY_CITY
from kafka_client.clients import admin, ensure_topics
from lineage import outbox
from lineage.emitter import Known, LineageEmitter, open_emitter
from lineage.model import Job
from observability.progress_report import ProgressReport
from sources import lineage as of_sources
from stack.cli import app
from stack.embedded import Embedded
from streaming import lineage as of_streaming
from streaming import view_columns as of_views
from streaming.pipelines import CURRENT, PIPELINES
from tests.support.kafka import committed_values
from tests.support.lineage_client import answering, ends, serving, way
from tests.support.marquez import Marquez
from tests.support.waiting import wait_until

CITY = PIPELINES[TOP_SALES_BY_CITY.name, CURRENT[TOP_SALES_BY_CITY.name]]


def told(kafka: KafkaSettings, job: str) -> list[dict[str, Any]]:
    """The topic's events of a job's runs, in order."""
    events: list[dict[str, Any]] = []
    for key, value in committed_values(kafka, OPENLINEAGE_EVENTS):
        event = json.loads(value or b"")
        assert key == f"run:electrored/{event['job']['name']}".encode()
        events.append(event)
    return [event for event in events if event["job"]["name"] == job]


def states(events: list[dict[str, Any]]) -> list[str]:
    return [event["eventType"] for event in events]


def test_a_column_s_way_is_answered_to_its_sources_and_back(
    stack: Embedded,
    results_db: ResultsDbSettings,
    known: tuple[Known, ...],
    settings: LineageSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs: list[Callable[[], Job]] = [
        partial(of_sources.capture, "public.sales"),
        of_sources.csv,
        partial(of_streaming.worker, CITY, 1),
        partial(of_streaming.sink, CITY, 1),
        *(partial(of_views.shown, name) for name in datasets.view_names()),
        # Of a generation that workers keep by now: both jobs emit it.
        partial(of_streaming.replay, CITY, 1),
    ]
    built(results_db)
    with open_emitter("test", *known, settings=settings) as lineage:
        for job in jobs:
            with lineage.run(job):
                pass
    with answering(stack, results_db) as ask:
        wait_until(lambda: "step" in ask("top_sales_by_city.total"), what="answer")
        up = ask("top_sales_by_city.total")
        csv = next(one for one in known if isinstance(one, CsvSettings))
        assert {("public.sales", "amount"), (str(csv.csv_inbox), "amount")} == {
            (place if place.startswith("/") else place.partition(".")[2], column)
            for place, column in ends(up["step"])
        }
        to_log = ["IDENTITY", "IDENTITY", "AGGREGATION", "AGGREGATION"]
        assert list(way(up["step"], "sales-events")) == [to_log]
        # Negated in a reversal, read from text: neither is the value as it is.
        to_table = [*to_log, "TRANSFORMATION"]
        assert list(way(up["step"], ask("public.sales")["step"]["name"])) == [to_table]
        to_file = [*to_log, "TRANSFORMATION"]
        # A correction reverses what csv_sales kept of the file.
        assert sorted(way(up["step"], str(csv.csv_inbox))) == [to_file, [*to_file, "TRANSFORMATION"]]
        for start in ("public.sales.amount", f"{csv.csv_inbox.name}.amount"):
            down = ask(start, direction="downstream")
            assert any(
                place.endswith("public.top_sales_by_city") and column == "total"
                for place, column in ends(down["step"])
            )
        assert ask("top_sales_by_city")["step"]["column"] is None
        assert "has no column" in ask("top_sales_by_city", column="nothing")["detail"]
        assert ask("nothing")["status"] == 404
    with serving(stack, results_db) as url:
        _asked_by_command(url, csv, monkeypatch)
    # A new process reads what is stored: no event is sent once more.
    with answering(stack, results_db, follows=False) as ask:
        assert ask("top_sales_by_city.total") == up


def _asked_by_command(url: str, csv: CsvSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`electrored lineage`, as JSON and as a tree, there and back."""
    monkeypatch.setattr("stack.commands.running_in", lambda _: SimpleNamespace(api_url=url))

    def ran(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["lineage", *arguments], env={"COLUMNS": "400"})
        assert done.exit_code == 0, done.output
        return done.stdout

    found = set(ends(json.loads(ran("top_sales_by_city.total", "--json"))["step"]))
    inbox = (str(csv.csv_inbox), "amount")
    (table,) = found - {inbox}
    assert inbox in found
    assert (table[0].partition(".")[2], table[1]) == ("public.sales", "amount")
    up = ran("top_sales_by_city.total")
    assert len(up.splitlines()) <= 10
    assert "decided by" not in up
    assert "decided by" in ran("top_sales_by_city.total", "--all")
    assert "transformation (negated in a reversal)" in up
    assert "transformation (read from text)" in up
    for source in ("public.sales.amount", f"{csv.csv_inbox.name}.amount"):
        assert "public.top_sales_by_city.total" in ran(source, "--downstream")
        down = ran(source, "--downstream", "--all")
        assert "decides over" in down
        assert "decided by" not in down


def built(results_db: ResultsDbSettings) -> None:
    engine = create_engine(results_db.results_db_url.get_secret_value())
    with engine.begin() as connection:
        connection.execute(
            insert(generations).values(
                pipeline=CITY.name,
                number=1,
                version=CITY.version,
                state="active",
                parameters={},
                topics={},
                start_offsets={},
                reason="test",
                created_by="test",
                created_at=datetime.now(UTC),
                apply_number=0,
            )
        )
    engine.dispose()


def test_a_run_is_told_from_its_start_to_its_end_and_how_far_it_is_between(
    stack: Embedded, known: tuple[Known, ...], settings: LineageSettings
) -> None:
    job = of_streaming.worker(CITY, 71)
    report = ProgressReport(watermark=datetime(2026, 11, 23, tzinfo=UTC), counts={"combine": {"events": 3}})
    with open_emitter("test", *known, settings=settings) as lineage:
        with lineage.run(lambda: job, lambda: report):
            wait_until(lambda: "RUNNING" in states(told(stack.kafka, job.name)), what="RUNNING")
        with pytest.raises(ValueError, match="it broke"), lineage.run(lambda: job):
            raise ValueError("it broke")
    events = told(stack.kafka, job.name)
    first = [event for event in events if event["run"]["runId"] == events[0]["run"]["runId"]]
    assert states(first)[0] == "START"
    assert states(first)[-1] == "COMPLETE"
    assert set(states(first)[1:-1]) == {"RUNNING"}
    said = first[-1]["run"]["facets"]["electroRed_watermark"]
    assert said["watermark"].startswith("2026-11-23T00:00:00")
    assert said["counts"] == {"combine": {"events": 3}}
    assert states(events[len(first) :])[-1] == "FAIL"
    assert events[-1]["run"]["facets"]["errorMessage"]["message"] == "it broke"


def test_a_run_that_was_killed_is_ended_by_the_next_of_its_process(
    stack: Embedded, known: tuple[Known, ...], settings: LineageSettings
) -> None:
    job = of_streaming.worker(CITY, 72)
    abandoned: list[Any] = []
    with open_emitter("test", *known, settings=settings) as lineage:
        # Entered and never left, as by a killed process.
        abandoned.append(lineage.run(lambda: job))
        abandoned[0].__enter__()
    assert "COMPLETE" not in states(told(stack.kafka, job.name))
    with open_emitter("test", *known, settings=settings) as lineage, lineage.run(lambda: job):
        pass
    events = told(stack.kafka, job.name)
    left = [event for event in events if event["run"]["runId"] == events[0]["run"]["runId"]]
    assert states(left)[0] == "START"
    assert "ABORT" in states(left)
    assert states(events)[-1] == "COMPLETE"
    # The thread that emits its events ends with it.
    with pytest.raises(StopIteration):
        next(abandoned[0].gen)


def test_a_backend_that_is_away_stops_nobody_and_gets_all_of_it_later_in_order(
    stack: Embedded,
    known: tuple[Known, ...],
    settings: LineageSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two transports: the topic goes on at once, the other one is caught up, by the next process too."""
    job = of_streaming.worker(CITY, 73)
    with Marquez() as backend:
        backend.status = 503
        transports = {
            "marquez": {"type": "http", "url": backend.url, "retry": {"total": 0}},
            "topic": {
                "type": "kafka",
                "topic": OPENLINEAGE_EVENTS.name,
                # Without a broker the process's own is used.
                "config": {},
                "flush": False,
            },
        }
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "composite")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TRANSPORTS", json.dumps(transports))
        with open_emitter("test", *known, settings=settings) as lineage:
            began = time.monotonic()
            _ten_runs(lineage, lambda: job)
            worked = time.monotonic() - began
            wait_until(lambda: bool(backend.sent), what="attempt")
        # No run waited for an answer: a thread delivers the events.
        assert worked < 1.0
        assert backend.taken == []
        there = told(stack.kafka, job.name)
        assert states(there) == ["START", "COMPLETE"] * 10
        backend.status = 201
        with open_emitter("test", *known, settings=settings):
            wait_until(lambda: len(backend.taken) >= 20, what="what was kept")
        assert [(e["run"]["runId"], e["eventType"]) for e in backend.taken] == [
            (e["run"]["runId"], e["eventType"]) for e in there
        ]


def test_a_topic_that_is_not_there_yet_is_waited_for(
    stack: Embedded, known: tuple[Known, ...], settings: LineageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, topic = of_streaming.worker(CITY, 74), "lineage-later"
    later = replace(OPENLINEAGE_EVENTS, name=topic)
    monkeypatch.setattr("lineage.transports.OPENLINEAGE_EVENTS", later)
    with open_emitter("later", *known, settings=settings) as lineage:
        with lineage.run(lambda: job):
            pass
        folder = settings.lineage_dir
        assert folder is not None

        def waiting() -> int:
            return sum(count for _, _, count in outbox.waiting(folder))

        wait_until(lambda: waiting() == 2, what="events that wait")
        ensure_topics(stack.kafka, [later])
        wait_until(lambda: waiting() == 0, what="delivery")
    # Kept until it is done: a client that goes out of scope takes its requests with it.
    client = admin(stack.kafka)
    client.delete_topics([topic])[topic].result()


def _ten_runs(lineage: LineageEmitter, job: Callable[[], Any]) -> None:
    for _ in range(10):
        with lineage.run(job):
            pass
