"""Events in their order, whatever the backend does; and nobody who waits."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde
from prometheus_client import REGISTRY

from lineage import delivery, outbox
from lineage.delivery import Delivery
from lineage.emitter import COMPLETE, RUNNING, START
from lineage.events import restored
from lineage.outbox import Outbox
from observability.progress_report import ProgressReport
from tests.support.lineage_events import JOBS, Backend, run_event

# Longer than any of them takes on a busy machine; reached only by a defect.
SECONDS = 60.0


def events(*states: str, job: int = 0) -> list[RunEvent]:
    return [restored(json.dumps(run_event(JOBS[job], state, ProgressReport()))) for state in states]


def put(queues: dict[str, Backend], folder: Path | None, *given: RunEvent) -> bool:
    box = Delivery(queues, Outbox(folder, "it"))
    for event in given:
        box.put(event)
    return box.close(SECONDS)


def waiting(folder: Path) -> list[str]:
    """The events that wait, as JSON."""
    with closing(sqlite3.connect(folder / outbox.FILE)) as db:
        return [event for (event,) in db.execute("SELECT event FROM events ORDER BY id")]


@pytest.mark.parametrize("is_on_disk", [True, False])
def test_events_come_in_order(tmp_path: Path, is_on_disk: bool) -> None:
    backend = Backend()
    folder = tmp_path if is_on_disk else None
    assert put({"a": backend}, folder, *events(START, RUNNING, RUNNING, COMPLETE))
    assert backend.states == [START, RUNNING, RUNNING, COMPLETE]
    assert not is_on_disk or waiting(tmp_path) == []


def test_what_one_process_could_not_deliver_the_next_one_does_first(tmp_path: Path) -> None:
    backend, other = Backend(is_away=True), Backend()
    # It does not wait for the one that is away, or the test would.
    assert not put({"a": backend, "b": other}, tmp_path, *events(START, RUNNING))
    assert other.states == [START, RUNNING], "one that is away holds no other back"
    backend.is_away = False
    assert put({"a": backend, "b": other}, tmp_path, *events(COMPLETE))
    assert backend.states == other.states == [START, RUNNING, COMPLETE]


def test_processes_that_write_at_once_lose_nothing_and_deliver_nothing_twice(tmp_path: Path) -> None:
    backends = [Backend() for _ in range(3)]
    boxes = [Delivery({"a": one}, Outbox(tmp_path, f"p{number}")) for number, one in enumerate(backends)]
    (event,) = events(START)
    for _ in range(100):
        for box in boxes:
            box.put(event)
    assert all(box.close(SECONDS) for box in boxes)
    assert [len(one.events) for one in backends] == [100] * 3


def test_an_event_that_is_refused_holds_no_other_back(tmp_path: Path) -> None:
    backend = Backend(refuses=JOBS[1].name)
    assert put({"refusing": backend}, tmp_path, *events(START, job=1), *events(START, COMPLETE))
    assert backend.states == [START, COMPLETE]
    counted = [
        REGISTRY.get_sample_value(f"electrored_lineage_{what}_total", {"lane": "refusing"})
        for what in ("delivered", "refused", "dropped")
    ]
    assert counted == [2, 1, 0]


def test_what_is_no_event_holds_no_other_back(tmp_path: Path) -> None:
    backend = Backend()
    with closing(Outbox(tmp_path, "it")) as box:
        box.put("a", START, "{")
    assert put({"a": backend}, tmp_path, *events(START))
    assert backend.states == [START]


def test_of_too_many_those_on_the_way_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_EVENTS", 3)
    backend = Backend(is_away=True)
    assert not put({"a": backend}, tmp_path, *events(START, RUNNING, RUNNING, RUNNING, COMPLETE))
    assert [json.loads(event)["eventType"] for event in waiting(tmp_path)] == [START, RUNNING, COMPLETE]


def test_a_database_that_cannot_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, failures = Backend(), [OSError("no such device")]
    first = Outbox.first

    def failing(box: Outbox, lane: str) -> tuple[int, str] | None:
        if failures:
            raise failures.pop()
        return first(box, lane)

    monkeypatch.setattr(Outbox, "first", failing)
    monkeypatch.setattr(delivery, "AGAIN_SECONDS", (0.01,))
    box = Delivery({"a": backend}, Outbox(tmp_path, "it"))
    box.put(*events(START))
    assert backend.asked.wait(SECONDS)
    assert box.close(SECONDS)


def test_a_restored_event_is_the_one_that_was_put_in() -> None:
    (event,) = events(START)
    assert json.loads(Serde.to_json(event)) == run_event(JOBS[0], START, ProgressReport())
