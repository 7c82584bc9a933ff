"""Every run that begins is ended, however its process ends; and its end is its last event."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lineage.delivery import Delivery
from lineage.emitter import ABORT, COMPLETE, FAIL, KILLED, RUNNING, START, LineageEmitter
from lineage.model import BATCH, Job
from lineage.outbox import Outbox
from lineage.run import Naming
from observability.progress_report import ProgressReport
from observability.waits import Cancelled
from tests.support.lineage_events import PLACES, Backend
from tests.support.python_process import run_python
from tests.support.waiting import wait_until

# Longer than any of them takes on a busy machine; reached only by a defect.
SECONDS = 60.0
OLD = "0192c7b7-2b0c-7a30-8f6e-2f4f0e0a0001"


def said(backend: Backend) -> list[tuple[str, str]]:
    return list(zip((event.job.name for event in backend.events), backend.states, strict=True))


def lineage(
    backend: Backend,
    folder: Path,
    process: str = "it",
    *,
    every_seconds: float = SECONDS,
    is_alone: bool = True,
) -> LineageEmitter:
    def delivery() -> Delivery:
        return Delivery({"a": backend}, Outbox(folder, process, is_alone=is_alone))

    return LineageEmitter(Naming("electrored", PLACES), delivery, every_seconds)


def killed(folder: Path, process: str, job: str) -> None:
    """A process had begun a run when it was killed, its database open."""
    code = (
        "import os; from pathlib import Path; from lineage.outbox import OpenRun, Outbox; "
        f"outbox = Outbox(Path({str(folder)!r}), {process!r}); outbox.begin(OpenRun({OLD!r}, {job!r})); "
        # Its lock is taken by what it delivers.
        "outbox.first('a'); os._exit(0)"
    )
    assert run_python("-c", code).returncode == 0


def open_runs(folder: Path, process: str = "it") -> int:
    with closing(Outbox(folder, process)) as outbox:
        return len(outbox.open_runs())


def job(name: str = "a-job") -> Callable[[], Job]:
    return lambda: Job(name, BATCH, "x.py", (), ())


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ValueError("it broke"), FAIL),
        (Cancelled("told to stop while the database was away"), ABORT),
        (KeyboardInterrupt("Ctrl-C"), ABORT),
    ],
)
def test_what_failed_is_told_from_what_was_stopped(tmp_path: Path, error: BaseException, end: str) -> None:
    teller = lineage(backend := Backend(), tmp_path)
    with pytest.raises(type(error)), teller.run(job()):
        raise error
    teller.close()
    assert backend.states == [START, end]
    assert backend.events[-1].run.facets["errorMessage"]["message"] == str(error)
    assert open_runs(tmp_path) == 0


def test_an_error_is_told_without_values_and_secrets(tmp_path: Path) -> None:
    teller = lineage(backend := Backend(), tmp_path)
    words = "no way to postgresql://u:s3cr3t@db/results\n[SQL: insert …]\n[parameters: {'city': 'Berlin'}]"
    with pytest.raises(Cancelled), teller.run(job()):
        raise Cancelled(words)
    teller.close()
    message = backend.events[-1].run.facets["errorMessage"]["message"]
    assert message.startswith("no way to postgresql://u:")
    assert not any(word in message for word in ("s3cr3t", "Berlin", "\n"))


def test_the_next_process_of_a_name_ends_all_that_a_killed_one_had_begun(tmp_path: Path) -> None:
    """Also for a deleted generation, because no run of its job begins again."""
    killed(tmp_path, "it", "top-sales-by-city.g1")
    teller = lineage(backend := Backend(), tmp_path)
    with teller.run(job("top-sales-by-city.g2")):
        pass
    teller.close()
    assert said(backend) == [
        ("top-sales-by-city.g1", ABORT),
        ("top-sales-by-city.g2", START),
        ("top-sales-by-city.g2", COMPLETE),
    ]
    assert backend.events[0].run.runId == OLD
    assert backend.events[0].run.facets["errorMessage"]["message"] == KILLED
    assert open_runs(tmp_path) == 0


def test_what_a_process_left_whose_name_is_not_taken_up_again_is_told_by_another_in_order(
    tmp_path: Path,
) -> None:
    """A slice of a replay, or a slot that is no more: its events are kept, and its run is not open for ever."""
    gone = lineage(away := Backend(is_away=True), tmp_path, "slice")
    with gone.run(job("slice")):
        pass
    gone.close()
    assert away.events == []
    killed(tmp_path, "slice", "slice")

    heir = lineage(backend := Backend(awaited=ABORT), tmp_path, "worker", every_seconds=0.05)
    assert backend.came.wait(SECONDS)
    heir.close()
    assert said(backend) == [("slice", START), ("slice", COMPLETE), ("slice", ABORT)]
    assert backend.events[-1].run.runId == OLD
    assert open_runs(tmp_path, "slice") == 0


def test_nobody_is_an_heir_of_who_lives(tmp_path: Path) -> None:
    living = lineage(Backend(is_away=True), tmp_path, "sink")
    # Dagster's runs share a folder, and the end of one does not imply that of the others.
    shared = lineage(Backend(is_away=True), tmp_path, "dagster", is_alone=False)
    killed(tmp_path, "killed", "killed")
    with living.run(job("living")), shared.run(job("shared")):
        wait_until(lambda: open_runs(tmp_path, "sink") + open_runs(tmp_path, "dagster") == 2, what="runs")
        heir = lineage(backend := Backend(awaited=ABORT), tmp_path, "worker", every_seconds=0.05)
        assert backend.came.wait(SECONDS)
        heir.close()
        assert said(backend) == [("killed", ABORT)]
        assert [open_runs(tmp_path, name) for name in ("sink", "dagster")] == [1, 1]
    living.close()
    shared.close()


def test_nothing_is_told_of_a_run_behind_its_end(tmp_path: Path) -> None:
    """A RUNNING there would be a run that goes on for ever."""
    backend = Backend(awaited=RUNNING)
    teller = lineage(backend, tmp_path, every_seconds=0.01)
    asked = threading.Event()

    def slow() -> ProgressReport:
        # The ticking thread is here when the run ends.
        if threading.current_thread() is not threading.main_thread():
            asked.set()
            threading.Event().wait(0.2)
        return ProgressReport()

    with teller.run(job(), slow):
        assert asked.wait(SECONDS)
    teller.close()
    assert backend.states[-1] == COMPLETE
    assert RUNNING in backend.states
