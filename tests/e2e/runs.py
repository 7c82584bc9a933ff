"""Dagster's runs on a platform: launched, waited for, killed."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psutil

from contracts import datasets
from tests.e2e.command import Platform, until


def kill_runs(server: psutil.Process) -> None:
    """kill -9 of every run's process; one that has ended and was not reaped yet is none."""
    runs = []
    for child in server.children():
        with suppress(psutil.NoSuchProcess):  # A zombie is one of them.
            if "spawn_main" in " ".join(child.cmdline()):
                runs.append(child)
    assert runs, "no run is on its way"
    for run in runs:
        run.kill()


def code_server(platform: Platform) -> psutil.Process:
    """Runs are its children. Asked for before the moment of a kill: the command takes its time."""
    return psutil.Process(platform.pid("dagster-code"))


def ask_dagster(platform: Platform, query: str) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    url = f"{platform.addresses['ELECTRORED_DAGSTER_URL']}/graphql"
    asked = urllib.request.Request(url, json.dumps({"query": query}).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    assert "errors" not in found, found
    data: dict[str, Any] = found["data"]
    return data


def stop_schedule_of_polls(platform: Platform) -> None:
    """Only the test's polls run: a scheduled one could end before the one that is to be killed."""
    schedule = '{repositoryLocationName: "electrored", repositoryName: "__repository__", scheduleName: "poll_payments"}'
    found = ask_dagster(
        platform,
        f"{{ scheduleOrError(scheduleSelector: {schedule}) {{ ... on Schedule {{ scheduleState {{ id }} }} }} }}",
    )
    state_id = found["scheduleOrError"]["scheduleState"]["id"]
    stopped = ask_dagster(platform, f'mutation {{ stopRunningSchedule(id: "{state_id}") {{ __typename }} }}')
    assert stopped["stopRunningSchedule"]["__typename"] == "ScheduleStateResult", stopped


def launch(
    platform: Platform,
    job: str,
    config: Mapping[str, Any] | None = None,
    checks: Sequence[tuple[str, str]] = (),
) -> str:
    """What a person starts on Dagster's page, or these checks of pipelines' answers only; gives the run's id."""
    chosen = "".join(
        f", {{assetKey: {{path: {json.dumps(datasets.view(pipeline).key)}}}, name: {json.dumps(name)}}}"
        for pipeline, name in checks
    )
    selector = (
        f'{{repositoryLocationName: "electrored", repositoryName: "__repository__", jobName: "{job}"'
        + (f", assetSelection: [], assetCheckSelection: [{chosen[2:]}]}}" if checks else "}")
    )
    launched = ask_dagster(
        platform,
        f"mutation {{ launchRun(executionParams: {{selector: {selector}, "
        f"runConfigData: {json.dumps(json.dumps(config or {}))}}}) "
        "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def launch_backfill(platform: Platform, asset: Sequence[str], partitions: Sequence[str]) -> str:
    """What a person starts on an asset's page for some of its partitions; gives the id of the only run."""
    key, names = json.dumps(list(asset)), json.dumps(list(partitions))

    def known() -> set[str]:
        found = ask_dagster(
            platform,
            f"{{ assetNodeOrError(assetKey: {{path: {key}}}) {{ ... on AssetNode {{ partitionKeys }} }} }}",
        )
        return set(found["assetNodeOrError"]["partitionKeys"])

    until(lambda: set(partitions) <= known(), 150, "the sensor to add the windows")
    launched = ask_dagster(
        platform,
        f"mutation {{ launchPartitionBackfill(backfillParams: {{assetSelection: [{{path: {key}}}], "
        f"partitionNames: {names}}}) "
        "{ __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    backfill = launched["backfillId"]

    def runs() -> list[dict[str, str]]:
        found = ask_dagster(
            platform,
            f'{{ partitionBackfillOrError(backfillId: "{backfill}") '
            "{ ... on PartitionBackfill { runs(limit: 9) { runId } } } }",
        )
        made: list[dict[str, str]] = found["partitionBackfillOrError"]["runs"]
        return made

    until(lambda: bool(runs()), 60, "the backfill's run")
    (run,) = runs()
    return run["runId"]


def cancel(platform: Platform, run_id: str) -> None:
    """What a person does on the run's page, wherever the run is."""
    query = f'terminateRun(runId: "{run_id}", terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY)'
    ended = ask_dagster(platform, f"mutation {{ {query} {{ __typename }} }}")
    assert ended["terminateRun"]["__typename"] == "TerminateRunSuccess", ended
    assert end_of(platform, run_id) == "CANCELED"


def last_words(platform: Platform, run_id: str) -> str:
    """The error of the failed step."""
    events = "events { ... on ExecutionStepFailureEvent { error { message } } }"
    found = ask_dagster(
        platform,
        f'{{ runOrError(runId: "{run_id}") {{ ... on Run {{ eventConnection {{ {events} }} }} }} }}',
    )
    failures = [event for event in found["runOrError"]["eventConnection"]["events"] if event]
    return str(failures[0]["error"]["message"])


def last_materialization(platform: Platform, asset: Sequence[str]) -> dict[str, Any]:
    """What the asset's page shows."""
    kinds = {"Markdown": "mdStr", "Text": "text", "Int": "intValue"}
    values = " ".join(f"... on {kind}MetadataEntry {{ {field} }}" for kind, field in kinds.items())
    found = ask_dagster(
        platform,
        f"{{ assetOrError(assetKey: {{path: {json.dumps(list(asset))}}}) {{ ... on Asset "
        f"{{ assetMaterializations(limit: 1) {{ metadataEntries {{ label {values} }} }} }} }} }}",
    )
    (event,) = found["assetOrError"]["assetMaterializations"]
    return {
        entry["label"]: next((value for name, value in entry.items() if name != "label"), None)
        for entry in event["metadataEntries"]
    }


def end_of(platform: Platform, run_id: str) -> str:
    """How the run ended; waits for it."""

    def status() -> str:
        found = ask_dagster(platform, f'{{ runOrError(runId: "{run_id}") {{ ... on Run {{ status }} }} }}')
        return str(found["runOrError"]["status"])

    until(lambda: status() in ("SUCCESS", "FAILURE", "CANCELED"), 300, f"the end of the run {run_id}")
    return status()
