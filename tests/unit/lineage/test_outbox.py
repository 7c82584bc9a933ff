"""Events are delivered in their order, whatever backend, disk and other processes do."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import Mock

import pytest
from openlineage.client.event_v2 import RunEvent
from openlineage.client.serde import Serde
from prometheus_client import REGISTRY

from lineage import delivery, outbox
from lineage.delivery import Delivery
from lineage.emitter import COMPLETE, RUNNING, START
from lineage.events import restored
from lineage.outbox import OpenRun, Outbox
from observability.progress_report import ProgressReport
from tests.support.lineage_events import JOBS, Backend, run_event
from tests.support.python_process import run_python
from tests.support.waiting import wait_until

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


# Puts numbered events and delivers them to a file, as one of several processes of a name.
PROCESS = """
import json, sys
from pathlib import Path
from lineage.delivery import Delivery
from lineage.outbox import OpenRun, Outbox
folder, process, event = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
from lineage.events import restored

def send(event):
    with (folder / "delivered").open("a") as file:
        file.write(event.run.runId + "\\n")

delivery = Delivery({"a": send}, Outbox(folder / "outbox", "it", is_alone=False))
for number in range(100):
    event["run"]["runId"] = f"{int(process):08d}-0000-4000-8000-{number:012d}"
    delivery.put(restored(json.dumps(event)))
delivery.close(60)
"""


def test_processes_of_one_name_lose_nothing_and_deliver_nothing_twice(tmp_path: Path) -> None:
    event = json.dumps(run_event(JOBS[0], START, ProgressReport()))
    with ThreadPoolExecutor(3) as threads:
        done = list(
            threads.map(lambda number: run_python("-c", PROCESS, str(tmp_path), str(number), event), range(3))
        )
    assert [process.returncode for process in done] == [0] * 3, done
    # What waited for another process's right to deliver when one ended.
    with closing(Outbox(tmp_path / "outbox", "it", is_alone=False)) as left:
        assert left.waiting("a") == 0
    delivered = (tmp_path / "delivered").read_text().splitlines()
    assert (len(delivered), len(set(delivered))) == (300, 300)


def test_a_full_disk_sends_nothing_twice_and_holds_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion needs room, too."""
    backend, is_full = Backend(COMPLETE), threading.Event()
    is_full.set()
    remove = Outbox.remove

    def removing(box: Outbox, ids: Sequence[int]) -> None:
        if is_full.is_set():
            raise sqlite3.OperationalError("database or disk is full")
        remove(box, ids)

    monkeypatch.setattr(Outbox, "remove", removing)
    monkeypatch.setattr(delivery, "AGAIN_SECONDS", (0.01,))
    box = Delivery({"a": backend}, Outbox(tmp_path, "it"))
    for event in events(START, RUNNING, COMPLETE):
        box.put(event)
    assert backend.came.wait(SECONDS)
    is_full.clear()
    wait_until(lambda: not waiting(tmp_path), SECONDS, "deletion")
    assert box.close(SECONDS)
    assert backend.states == [START, RUNNING, COMPLETE]


def test_a_run_of_a_living_process_of_the_name_is_not_left() -> None:
    with TemporaryDirectory() as name, closing(Outbox(Path(name), "it")) as first:
        assert first.inherit(of_others=True) == []
        with closing(Outbox(Path(name), "it")) as second:
            second.begin(OpenRun("r", "a-job"))
            assert first.inherit(of_others=True) == []
            assert [run.run_id for run in second.open_runs()] == ["r"]


def test_an_own_run_whose_deletion_failed_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a living process would emit ABORT behind its COMPLETE."""
    with closing(Outbox(tmp_path, "it")) as box:
        box.begin(OpenRun("r", "a-job"))
        with monkeypatch.context() as full:
            full.setattr(box, "_execute", Mock(side_effect=sqlite3.OperationalError("disk is full")))
            with pytest.raises(sqlite3.OperationalError):
                box.end("r")
        assert [run.run_id for run in box.open_runs()] == ["r"]
        assert box.inherit(of_others=True) == []


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
    given = events(START, RUNNING, RUNNING, RUNNING, COMPLETE)
    for number, event in enumerate(given):
        event.eventTime = f"2026-11-23T09:00:0{number}+00:00"
    assert not put({"a": backend}, tmp_path, *given)
    left = [json.loads(event)["eventTime"][17:19] for event in waiting(tmp_path)]
    assert left == ["00", "03", "04"], "the oldest on the way"


def test_a_database_that_cannot_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, failures = Backend(), [OSError("no such device")]
    first = Outbox.first

    def failing(box: Outbox, lane: str, **options: Any) -> tuple[int, str] | None:
        if failures:
            raise failures.pop()
        return first(box, lane, **options)

    monkeypatch.setattr(Outbox, "first", failing)
    monkeypatch.setattr(delivery, "AGAIN_SECONDS", (0.01,))
    box = Delivery({"a": backend}, Outbox(tmp_path, "it"))
    box.put(*events(START))
    assert backend.asked.wait(SECONDS)
    assert box.close(SECONDS)


def test_a_restored_event_is_the_one_that_was_put_in() -> None:
    (event,) = events(START)
    assert json.loads(Serde.to_json(event)) == run_event(JOBS[0], START, ProgressReport())
