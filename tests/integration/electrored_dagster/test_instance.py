"""Dagster as `up` configures it: observes real numbers, fails lost runs, forgets what is old."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.instance import RUNLESS_RUN_ID
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget, GrpcServerTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from contracts.settings import ResultsDbSettings
from contracts.topics import PUBLIC
from electrored_dagster.defs.instance import Platform
from electrored_dagster.defs.upkeep.observing import observe_platform
from electrored_dagster.defs.upkeep.pruning import prune_history
from electrored_dagster.pruning import KEEP_EVENTS, prune
from kafka_client.clients import ensure_topics
from observer import probes
from stack.embedded import Embedded
from stack.ports import Ports
from tests.support import logging_location
from tests.support.code_server import code_server
from tests.support.waiting import wait_until

ANSWER = dg.AssetKey(["results_db", "public", "top_sales_by_city"])


def test_the_sensor_observes_what_the_servers_say(
    stack: Embedded,
    results_db: ResultsDbSettings,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ensure_topics(stack.kafka, PUBLIC)
    monkeypatch.setenv("ELECTRORED_KAFKA_BOOTSTRAP", stack.kafka.kafka_bootstrap)
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", stack.kafka.schema_registry_url)
    monkeypatch.setenv("ELECTRORED_RESULTS_DB_URL", results_db.results_db_url.get_secret_value())
    heard: list[str] = []
    monkeypatch.setattr(
        "electrored_dagster.defs.upkeep.observing.emit_checks",
        lambda _, sensor, checks: heard.extend(f"{sensor}.{one.check_name}" for one in checks),
    )
    context = dg.build_sensor_context(instance, resources={"platform": Platform()})
    result = observe_platform(context)
    assert isinstance(result, dg.SensorResult)
    checks = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    assert all(check.passed for check in checks), "no id is in several sources, and no sale in the future"
    assert heard == [
        "observe_platform.sale_ids_in_both_sources",
        "observe_platform.sales_in_the_future",
        *["observe_platform.no_negative_groups"] * 3,
        *["observe_platform.no_event_is_dropped"] * 2,
    ], "as lineage, too"
    observed = {
        event.asset_key.to_user_string(): event for event in result.asset_events if event not in checks
    }
    assert {f"kafka/{topic.name}" for topic in PUBLIC} <= set(observed)
    for topic in PUBLIC:
        assert observed[f"kafka/{topic.name}"].metadata["partitions"].value == topic.partitions

    again = dg.build_sensor_context(instance, resources={"platform": Platform()}, cursor=result.cursor)
    unchanged = observe_platform(again)
    assert isinstance(unchanged, dg.SensorResult)
    assert unchanged.asset_events == []


def test_a_nightly_job_has_failed_until_its_next_success(instance: dg.DagsterInstance) -> None:
    outcomes = iter((False, True, False))

    @dg.op
    def succeeds_the_second_time() -> None:
        assert next(outcomes)

    @dg.job(name="prune_history")
    def nightly() -> None:
        succeeds_the_second_time()

    dagster = sa.create_engine(os.environ["ELECTRORED_DAGSTER_DB_URL"], poolclass=sa.NullPool)

    def seen() -> dict[str, float]:
        return {
            sample.name.removeprefix("electrored_nightly_"): sample.value
            for sample in probes.probe_dagster(dagster)
            if sample.labels.get("dagster_job") == "prune_history" and "outcome" not in sample.labels
        }

    assert seen() == {}
    first = nightly.execute_in_process(instance=instance, raise_on_error=False)
    (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[first.run_id]))
    assert seen() == {"failed": 1, "success_timestamp_seconds": record.start_time}, "it never succeeded"
    nightly.execute_in_process(instance=instance)
    succeeded_at = seen()["success_timestamp_seconds"]
    assert succeeded_at == pytest.approx(time.time(), abs=60)
    assert seen()["failed"] == 0
    nightly.execute_in_process(instance=instance, raise_on_error=False)
    assert seen() == {"failed": 1, "success_timestamp_seconds": succeeded_at}
    never = [one for one in probes.probe_dagster(dagster) if one.labels.get("dagster_job") == "check_replays"]
    assert [one.value for one in never] == [0, record.start_time], "one that never ran is late one day"
    ended = [one for one in probes.probe_dagster(dagster) if one.name == "electrored_runs_last_hour"]
    assert {one.labels["outcome"]: one.value for one in ended} == {"failure": 2, "success": 1}


def test_old_runless_events_go_and_the_last_of_each_asset_stays(instance: dg.DagsterInstance) -> None:
    other = dg.AssetKey(["kafka", "sales-events"])
    for rows in range(5):
        instance.report_runless_asset_event(dg.AssetMaterialization(ANSWER, metadata={"rows": rows}))
    for offset in range(3):
        instance.report_runless_asset_event(dg.AssetObservation(other, metadata={"end": offset}))
    now = datetime.now(UTC)
    assert prune(instance, now).events == 0, "nothing is old yet"

    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        old = (now - KEEP_EVENTS - timedelta(hours=1)).replace(tzinfo=None)
        connection.execute(sa.update(SqlEventLogStorageTable).values(timestamp=old))
    instance.report_runless_asset_event(dg.AssetMaterialization(ANSWER, metadata={"rows": 5}))

    assert prune(instance, now).events == 5 + 2
    (last,) = instance.fetch_materializations(ANSWER, limit=10).records
    assert last.asset_materialization is not None
    assert last.asset_materialization.metadata["rows"].value == 5
    (end,) = instance.fetch_observations(other, limit=10).records
    assert end.asset_observation is not None
    assert end.asset_observation.metadata["end"].value == 2


def test_events_of_runs_are_not_runless(instance: dg.DagsterInstance) -> None:
    run = prune_history.execute_in_process(instance=instance)
    assert run.success
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        connection.execute(sa.update(SqlEventLogStorageTable).values(timestamp=datetime(2020, 1, 1)))  # noqa: DTZ001
    assert prune(instance, datetime.now(UTC)).events == 0
    assert run.run_id != RUNLESS_RUN_ID
    assert instance.get_run_by_id(run.run_id) is not None


def test_old_finished_runs_go(instance: dg.DagsterInstance) -> None:
    run = prune_history.execute_in_process(instance=instance)
    assert prune(instance, datetime.now(UTC)).runs == 0
    assert prune(instance, datetime.now(UTC) + timedelta(days=91)).runs == 1
    assert instance.get_run_by_id(run.run_id) is None


def test_of_frequent_runs_that_went_well_the_last_days_are_kept_and_the_last_one(
    instance: dg.DagsterInstance,
) -> None:
    @dg.op
    def take() -> None:
        print("what the run says")

    def run(job: str, status: dg.DagsterRunStatus) -> str:
        made = dg.GraphDefinition(name=job, node_defs=[take]).to_job().execute_in_process(instance=instance)
        # As it was left by another time's outcome.
        assert isinstance(instance.run_storage, SqlRunStorage)
        with instance.run_storage.connect() as connection:
            table = RunsTable
            connection.execute(
                sa.update(table).where(table.c.run_id == made.run_id).values(status=status.value)
            )
        return made.run_id

    good, bad = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
    old = [run("csv_take", good) for _ in range(2)]
    kept = [run("csv_take", bad), run("nightly", good), run("csv_take", good)]
    storage = Path(instance.storage_directory())
    assert all((storage / run_id).exists() for run_id in old)
    assert prune(instance, datetime.now(UTC)).runs == 0
    assert prune(instance, datetime.now(UTC) + timedelta(days=4)).runs == len(old)
    assert not any(instance.get_run_by_id(run_id) or (storage / run_id).exists() for run_id in old)
    assert all(instance.get_run_by_id(run_id) for run_id in kept)


def test_a_run_whose_worker_was_killed_with_its_server_fails(instance: dg.DagsterInstance) -> None:
    port = Ports.free().dagster_code
    server = json.dumps({"host": "127.0.0.1", "port": port})
    lost = instance.create_run_for_job(
        prune_history, status=dg.DagsterRunStatus.STARTED, tags={GRPC_INFO_TAG: server}
    )
    logger = dg.get_dagster_logger()
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
        unanswered = [error for error in execute_run_monitoring_iteration(workspace, logger) if error]
        assert unanswered, "no server answers"
        assert status(instance, lost.run_id) == dg.DagsterRunStatus.STARTED, "so nothing is known of the run"
        with code_server(port):
            assert [error for error in execute_run_monitoring_iteration(workspace, logger) if error] == []
    assert status(instance, lost.run_id) == dg.DagsterRunStatus.FAILURE


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_what_a_run_of_ours_says_is_json_where_that_is_wished(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code server's own lines too; those of its runs are Dagster's, which has no setting for them."""
    monkeypatch.setenv("ELECTRORED_LOG_FORMAT", "json")
    port = Ports.free().dagster_code
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="logging")
    with (
        (tmp_path / "log").open("wb") as output,
        code_server(port, "--log-format", "json", module=logging_location.__name__, output=output),
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        request = workspace.create_request_context()
        job = (
            request.get_code_location("logging").get_repository("__repository__").get_full_job("logging_job")
        )
        run = instance.create_run_for_job(
            logging_location.logging_job,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )
        instance.launch_run(run.run_id, request)
        wait_until(lambda: status(instance, run.run_id) in FINISHED_STATUSES, what="end of the run")
        assert status(instance, run.run_id) == dg.DagsterRunStatus.SUCCESS
    lines = (tmp_path / "log").read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    (line,) = [line for line in told if line["event"] == "a line"]
    assert (line["process"], line["password"]) == ("dagster-code", "***")
    assert sum(line["event"].startswith("Started Dagster code server") for line in told) == 1, "and not twice"
    others = [line for line in lines if not line.startswith("{")]
    assert [line for line in others if " - dagster - DEBUG - logging_job - " not in line] == []


def test_a_run_that_lives_is_left_alone(instance: dg.DagsterInstance) -> None:
    port = Ports.free().dagster_code
    logger = dg.get_dagster_logger()
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="electrored")
    with code_server(port), WorkspaceProcessContext(instance, target) as workspace:
        request = workspace.create_request_context()
        location = request.get_code_location("electrored")
        repository = location.get_repository("__repository__")
        job = repository.get_full_job("prune_history")
        run = instance.create_run_for_job(
            prune_history,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )
        instance.launch_run(run.run_id, request)
        deadline = time.monotonic() + 120
        watched = 0
        while status(instance, run.run_id) not in FINISHED_STATUSES:
            assert time.monotonic() < deadline
            assert [error for error in execute_run_monitoring_iteration(workspace, logger) if error] == []
            watched += status(instance, run.run_id) == dg.DagsterRunStatus.STARTED
            time.sleep(0.05)
        assert status(instance, run.run_id) == dg.DagsterRunStatus.SUCCESS
        assert watched, "monitoring saw it at work"
