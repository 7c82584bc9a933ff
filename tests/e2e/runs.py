"""Dagster's runs on a platform: launched, waited for, killed."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import psutil

from tests.e2e.conftest import Platform, until


def kill_runs(server: psutil.Process) -> None:
    """kill -9 of every run's process."""
    runs = [one for one in server.children() if "spawn_main" in " ".join(one.cmdline())]
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
    """Polls are ours alone: one of every five minutes could end before the one that is to be killed."""
    schedule = '{repositoryLocationName: "electrored", repositoryName: "__repository__", scheduleName: "poll_payments"}'
    found = ask_dagster(
        platform,
        f"{{ scheduleOrError(scheduleSelector: {schedule}) {{ ... on Schedule {{ scheduleState {{ id }} }} }} }}",
    )
    state_id = found["scheduleOrError"]["scheduleState"]["id"]
    stopped = ask_dagster(platform, f'mutation {{ stopRunningSchedule(id: "{state_id}") {{ __typename }} }}')
    assert stopped["stopRunningSchedule"]["__typename"] == "ScheduleStateResult", stopped


def launch_poll(platform: Platform) -> str:
    """The job that a person starts to poll now; gives the run's id."""
    job = '{repositoryLocationName: "electrored", repositoryName: "__repository__", jobName: "soap_poll"}'
    launched = ask_dagster(
        platform,
        f"mutation {{ launchRun(executionParams: {{selector: {job}}}) "
        "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def end_of(platform: Platform, run_id: str) -> str:
    """How the run ended; waits for it."""

    def status() -> str:
        found = ask_dagster(platform, f'{{ runOrError(runId: "{run_id}") {{ ... on Run {{ status }} }} }}')
        return str(found["runOrError"]["status"])

    until(lambda: status() in ("SUCCESS", "FAILURE", "CANCELED"), 90, f"the end of the poll {run_id}")
    return status()
