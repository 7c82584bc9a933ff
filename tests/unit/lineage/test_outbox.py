"""Events in their order, whatever the backend does; and nobody who waits."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde
from prometheus_client import REGISTRY

from lineage import outbox
from lineage.emitter import COMPLETE, RUNNING, START
from lineage.outbox import EventRefused, Outbox, restored
from observability.progress_report import ProgressReport
from tests.support.lineage_events import JOBS, run_event

# Longer than any of them takes on a busy machine; reached only by a defect.
SECONDS = 60.0


class Backend:
    """Takes events, or not."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self.is_away = False
        self.refuses = ""
        self.asked = threading.Event()

    def __call__(self, event: RunEvent) -> None:
        self.asked.set()
        if self.is_away:
            raise ConnectionError("away")
        if event.job.name == self.refuses:
            raise EventRefused("no")
        self.events.append(event)


def events(*states: str, job: int = 0) -> list[RunEvent]:
    return [restored(run_event(JOBS[job], state, ProgressReport())) for state in states]


def put(queues: dict[str, Backend], folder: Path | None, *given: RunEvent) -> bool:
    box = Outbox(queues, folder)
    for event in given:
        box.put(event)
    return box.close(SECONDS)


def said(backend: Backend) -> list[str]:
    return [event.eventType.value for event in backend.events if event.eventType]


def test_events_come_in_order(tmp_path: Path) -> None:
    backend = Backend()
    assert put({"a": backend}, tmp_path, *events(START, RUNNING, RUNNING, COMPLETE))
    assert said(backend) == [START, RUNNING, RUNNING, COMPLETE]
    assert list(tmp_path.glob("a/*.json")) == []


def test_without_a_folder_they_are_delivered_too() -> None:
    backend = Backend()
    assert put({"a": backend}, None, *events(START, COMPLETE))
    assert said(backend) == [START, COMPLETE]


def test_what_one_process_could_not_deliver_the_next_one_does_first(tmp_path: Path) -> None:
    backend, other = Backend(), Backend()
    backend.is_away = True
    # It does not wait for the one that is away, or the test would.
    assert not put({"a": backend, "b": other}, tmp_path, *events(START, RUNNING))
    assert said(other) == [START, RUNNING], "one that is away holds no other back"
    backend.is_away = False
    assert put({"a": backend, "b": other}, tmp_path, *events(COMPLETE))
    assert said(backend) == said(other) == [START, RUNNING, COMPLETE]


def test_an_event_that_is_refused_holds_no_other_back(tmp_path: Path) -> None:
    backend = Backend()
    backend.refuses = JOBS[1].name
    assert put({"refusing": backend}, tmp_path, *events(START, job=1), *events(START, COMPLETE))
    assert said(backend) == [START, COMPLETE]
    counted = [
        REGISTRY.get_sample_value(f"electrored_lineage_{what}_total", {"lane": "refusing"})
        for what in ("delivered", "refused", "dropped")
    ]
    assert counted == [2, 1, 0]


def test_a_file_that_is_no_event_holds_no_other_back(tmp_path: Path) -> None:
    backend = Backend()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "00000000000000000001.START.json").write_text("{")
    assert put({"a": backend}, tmp_path, *events(START))
    assert said(backend) == [START]


def test_of_too_many_those_on_the_way_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_EVENTS", 3)
    backend = Backend()
    backend.is_away = True
    assert not put({"a": backend}, tmp_path, *events(START, RUNNING, RUNNING, RUNNING, COMPLETE))
    kept = [json.loads(file.read_text())["eventType"] for file in sorted(tmp_path.glob("a/*.json"))]
    assert kept == [START, RUNNING, COMPLETE]


def test_a_folder_that_cannot_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, failures = Backend(), [OSError("no such device")]
    deliver = outbox._Queue._deliver

    def failing(queue: outbox._Queue) -> None:
        if failures:
            raise failures.pop()
        deliver(queue)

    monkeypatch.setattr(outbox._Queue, "_deliver", failing)
    monkeypatch.setattr(outbox, "AGAIN_SECONDS", (0.01,))
    box = Outbox({"a": backend}, tmp_path)
    box.put(*events(START))
    assert backend.asked.wait(SECONDS)
    assert box.close(SECONDS)


def test_what_a_killed_process_had_not_finished_goes(tmp_path: Path) -> None:
    old, new = tmp_path / "a" / "1.json.part", tmp_path / "a" / "2.json.part"
    new.parent.mkdir()
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    assert put({"a": Backend()}, tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_restored_event_is_the_one_that_was_put_in() -> None:
    (event,) = events(START)
    assert json.loads(Serde.to_json(event)) == run_event(JOBS[0], START, ProgressReport())
