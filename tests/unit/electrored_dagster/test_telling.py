"""Lineage of Dagster's runs, emitted when they are over."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._scheduler.scheduler import launch_scheduled_runs, launch_scheduled_runs_for_schedule
from openlineage.client.serde import Serde

from contracts.datasets import CSV_SALES
from contracts.settings import LineageSettings
from electrored_dagster import openlineage as of_dagster
from electrored_dagster.asset_specs import evaluation
from electrored_dagster.observations import overlap_result
from lineage.delivery import Delivery
from lineage.emitter import ABORT, COMPLETE, FAIL, START, LineageEmitter, ProgressCell, open_emitter
from lineage.model import BATCH, Job
from lineage.outbox import OpenRun, Outbox
from lineage.run import Naming, RunOf
from observer.platform_status import Findings
from tests.support.lineage_events import PLACES
from tests.support.openlineage import check
from tests.support.waiting import wait_until


class Recording(Delivery):
    """Records the events, and delivers none."""

    def __init__(self, folder: Path) -> None:
        super().__init__({}, Outbox(folder, "dagster", is_alone=False))
        self.events: list[Any] = []

    def put(self, event: Any) -> None:
        self.events.append(event)


@contextmanager
def emitted(folder: Path) -> Iterator[tuple[LineageEmitter, list[Any]]]:
    """An emitter, and the events that it has delivered when the block ends."""
    delivery = Recording(folder)
    with closing(LineageEmitter(Naming("electrored", PLACES), lambda: delivery, 60.0)) as emitter:
        yield emitter, delivery.events


def open_runs(folder: Path) -> list[OpenRun]:
    with closing(Outbox(folder, "dagster", is_alone=False)) as outbox:
        return outbox.open_runs()


@pytest.fixture
def delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of delivered events."""
    for name, value in {
        "TYPE": "file",
        "LOG_FILE_PATH": str(tmp_path / "delivered"),
        "APPEND": "true",
    }.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    return tmp_path / "delivered"


@dg.asset(key=CSV_SALES.key, check_specs=[dg.AssetCheckSpec("reject_rate", asset=CSV_SALES.key)])
def good():  # type: ignore[no-untyped-def] # Dagster would take two annotations for two outputs
    check = dg.AssetCheckResult(check_name="reject_rate", asset_key=CSV_SALES.key, passed=False)
    return dg.MaterializeResult(check_results=[check])


@dg.asset
def bad() -> None:
    raise ValueError("it broke")


def run(asset: Any, instance: dg.DagsterInstance) -> Any:
    done = dg.materialize([asset], instance=instance, raise_on_error=False)
    record = instance.get_run_record_by_id(done.run_id)
    assert record is not None
    return record


def test_events_of_a_sensor_are_delivered_while_the_server_lives(
    tmp_path: Path, delivered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELECTRORED_LINEAGE_DIR", str(tmp_path / "waiting"))
    of_dagster.server_emitter.cache_clear()
    server = of_dagster.server_emitter()
    gc.collect()
    server.emit(RunOf(str(uuid4())), lambda: Job("dagster.x", BATCH, "x.py", (), ()), START)
    wait_until(delivered.exists, 60, "delivered event")
    assert json.loads(delivered.read_text())["job"]["name"] == "dagster.x"
    server.close()
    of_dagster.server_emitter.cache_clear()


def test_a_run_s_checks_are_assertions_on_what_they_checked(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance, emitted(tmp_path) as (emitter, events):
        record = run(good, instance)
        of_dagster.emit_end(emitter, instance, record)
    first, last = events
    assert [first.eventType.value, last.eventType.value] == [START, COMPLETE]
    assert first.eventTime <= last.eventTime
    assert first.run.runId == last.run.runId == record.dagster_run.run_id
    (checked,) = last.inputs
    assert (checked.namespace, checked.name) == PLACES.name(CSV_SALES)
    (assertion,) = checked.inputFacets["dataQualityAssertions"].assertions
    assert (assertion.assertion, assertion.success) == ("reject_rate", False)
    assert not any("nominalTime" in event.run.facets for event in events), "it was scheduled for no time"


def test_a_run_that_failed_ends_what_its_killed_step_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    with dg.DagsterInstance.ephemeral() as instance, emitted(tmp_path) as (emitter, events):
        record = run(bad, instance)
        child, other = (
            OpenRun(str(uuid4()), "csv-take", of) for of in (record.dagster_run.run_id, "another")
        )
        with closing(Outbox(tmp_path, "dagster", is_alone=False)) as outbox:
            for begun in (child, other):
                outbox.begin(begun)
        of_dagster.emit_end(emitter, instance, record)
    assert [(event.job.name, event.eventType.value) for event in events] == [
        ("csv-take", FAIL),
        (of_dagster.job_name(record.dagster_run.job_name), START),
        (of_dagster.job_name(record.dagster_run.job_name), FAIL),
    ]
    assert events[0].run.runId == child.run_id
    assert open_runs(tmp_path) == [other]


@pytest.mark.usefixtures("delivered")
def test_a_step_is_an_open_run_until_it_ends(tmp_path: Path) -> None:
    settings = LineageSettings(lineage_dir=tmp_path)
    job = Job("csv-take", BATCH, "x.py", (), ())
    with (
        open_emitter("dagster", settings=settings, is_alone=False) as emitter,
        emitter.run(lambda: job, ProgressCell()),
    ):
        wait_until(lambda: open_runs(tmp_path), 60, "open run")
    assert open_runs(tmp_path) == []


def scheduled(instance: dg.DagsterInstance, name: str, now: datetime, until: datetime) -> dg.DagsterRun:
    """The run that Dagster's own scheduler makes of a schedule of ours that is on from now."""
    target = InProcessWorkspaceLoadTarget(
        InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name="electrored_dagster.definitions"), location_name="electrored"
        )
    )
    log = logging.getLogger(__name__)
    with create_test_daemon_workspace_context(target, instance) as workspace:
        list(launch_scheduled_runs(workspace, log, now, iteration_times={}))
        (state,) = (one for one in instance.all_instigator_state() if one.instigator_name == name)
        (location,) = workspace.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        launch_scheduled_runs_for_schedule(
            workspace, log, repository.get_schedule(name), state, until,
            max_catchup_runs=1, max_tick_retries=0, tick_retention_settings={}, schedule_debug_crash_flags=None,
            submit_threadpool_executor=None, in_memory_last_iteration_timestamp=None,
        )  # fmt: skip
    (run,) = instance.get_runs()
    return run


# Of Dagster's own, when it describes a schedule in its own process.
@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning")
def test_a_scheduled_run_has_the_time_that_it_was_scheduled_for(tmp_path: Path) -> None:
    """By the tags that the scheduler gives its runs, for the run itself and for the events of its steps."""
    launcher = {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}
    now = datetime.now(UTC)
    with (
        dg.instance_for_test(overrides={"run_launcher": launcher}) as instance,
        emitted(tmp_path) as (emitter, events),
    ):
        run = scheduled(instance, "prune_nightly", now, now + timedelta(days=1))
        instance.report_run_canceled(run)
        record = instance.get_run_record_by_id(run.run_id)
        assert record is not None
        of_dagster.emit_end(emitter, instance, record)
    due = now.replace(hour=2, minute=40, second=0, microsecond=0)
    due += timedelta(days=1) if due <= now else timedelta()
    assert events
    for event in events:
        nominal = event.run.facets["nominalTime"]
        assert datetime.fromisoformat(nominal.nominalStartTime) == due
        assert nominal.nominalEndTime is None
    assert of_dagster._nominal(run.tags[of_dagster.SCHEDULED]) == (due, None)


@dg.asset_check(asset=CSV_SALES.key)
def looked(context):  # type: ignore[no-untyped-def] # Dagster refuses a context whose type is text
    with of_dagster.emitted(context, lambda: Job("looking", BATCH, "x.py", (), ()), ProgressCell()):
        return dg.AssetCheckResult(passed=True)


def test_what_a_check_does_has_dagster_s_run_as_parent(delivered: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(
            assets=[dg.AssetSpec(CSV_SALES.key)],
            asset_checks=[looked],
            jobs=[dg.define_asset_job("check", selection=dg.AssetSelection.checks(looked))],
        ).resolve_job_def("check")
        done = job.execute_in_process(instance=instance)
    first, last = map(json.loads, delivered.read_text().splitlines())
    assert [first["eventType"], last["eventType"]] == [START, COMPLETE]
    assert last["run"]["facets"]["parent"]["run"]["runId"] == done.run_id
    assert last["run"]["facets"]["parent"]["job"]["name"] == "dagster.check"


def test_what_a_sensor_checks_is_an_assertion_as_that_of_a_run(tmp_path: Path) -> None:
    evaluations = [
        evaluation(overlap_result(Findings(2, ("sale-1", "sale-2")))),
        dg.AssetCheckEvaluation(dg.AssetKey(CSV_SALES.key), "oldest_waiting_file", True),
    ]
    with emitted(tmp_path) as (emitter, events):
        of_dagster.emit_checks(emitter, "observe_platform", [])
        of_dagster.emit_checks(emitter, "observe_platform", evaluations)
    first, last = events
    assert [first.eventType.value, last.eventType.value] == [START, COMPLETE]
    assert first.run.runId == last.run.runId
    assert last.job.name == "dagster.observe_platform"
    asserted = {
        dataset.name: [(one.assertion, one.success) for one in facet.assertions]
        for dataset in last.inputs
        if (facet := dataset.inputFacets["dataQualityAssertions"])
    }
    assert asserted == {
        "sales-events": [("sale_ids_in_both_sources", False)],
        PLACES.name(CSV_SALES)[1]: [("oldest_waiting_file", True)],
    }
    for event in events:
        check(json.loads(Serde.to_json(event)))


def test_every_end_of_a_run_has_an_event() -> None:
    assert set(of_dagster.ENDS.values()) == {COMPLETE, FAIL, ABORT}
