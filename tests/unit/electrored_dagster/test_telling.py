"""What is told of Dagster's runs when they are over."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest

from contracts.datasets import CSV_SALES, Dataset
from contracts.settings import LineageSettings
from electrored_dagster import telling as of_dagster
from observability.lineage.facts import Naming, RunOf
from observability.lineage.hops import BATCH, Job
from observability.lineage.runs import ABORT, COMPLETE, FAIL, START, Lineage, Saying, telling
from tests.unit.observability.told import PLACES


class Told:
    """An outbox that remembers."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def put(self, event: Any) -> None:
        self.events.append(event)

    def close(self, seconds: float) -> bool:
        return True


def lineage(told: Told, folder: Path) -> Lineage:
    return Lineage(Naming("electrored", PLACES), lambda: told, folder, 60.0, is_alone=False)  # type: ignore[arg-type,return-value]


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


def test_what_a_sensor_tells_is_delivered_while_the_server_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELECTRORED_LINEAGE_DIR", str(tmp_path / "waiting"))
    for name, value in {"TYPE": "file", "LOG_FILE_PATH": str(tmp_path / "told"), "APPEND": "true"}.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    of_dagster.of_server.cache_clear()
    server = of_dagster.of_server()
    gc.collect()
    server.tell(RunOf(str(uuid4())), lambda: Job("dagster.x", BATCH, "x.py", (), ()), START)
    deadline = time.monotonic() + 60
    while not (tmp_path / "told").exists():
        assert time.monotonic() < deadline, "nobody delivers what is told"
        time.sleep(0.05)
    assert json.loads((tmp_path / "told").read_text())["job"]["name"] == "dagster.x"
    server.close()
    of_dagster.of_server.cache_clear()


def test_a_run_s_checks_are_assertions_on_what_they_checked(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        record, told = run(good, instance), Told()
        of_dagster.tell_end(teller := lineage(told, tmp_path), instance, record)
        teller.close()
    first, last = told.events
    assert [first.eventType.value, last.eventType.value] == [START, COMPLETE]
    assert first.eventTime <= last.eventTime
    assert first.run.runId == last.run.runId == record.dagster_run.run_id
    (checked,) = last.inputs
    assert (checked.namespace, checked.name) == PLACES.name(CSV_SALES)
    (assertion,) = checked.inputFacets["dataQualityAssertions"].assertions
    assert (assertion.assertion, assertion.success) == ("reject_rate", False)


def test_a_run_that_failed_ends_what_its_killed_step_left_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    with dg.DagsterInstance.ephemeral() as instance:
        record, told = run(bad, instance), Told()
        (tmp_path / "open").mkdir()
        parent = record.dagster_run.run_id
        child = "0192c7b7-2b0c-7a30-8f6e-2f4f0e0a0001"
        left = tmp_path / "open" / f"{child}.json"
        left.write_text(json.dumps({"run_id": child, "job": "csv-take", "parent": parent}))
        other = tmp_path / "open" / "other.json"
        other.write_text(json.dumps({"run_id": child, "job": "csv-take", "parent": "another"}))
        of_dagster.tell_end(teller := lineage(told, tmp_path), instance, record)
        teller.close()
    assert [(event.job.name, event.eventType.value) for event in told.events] == [
        ("csv-take", FAIL),
        (of_dagster.job_name(record.dagster_run.job_name), START),
        (of_dagster.job_name(record.dagster_run.job_name), FAIL),
    ]
    assert told.events[0].run.runId == child
    assert not left.exists()
    assert other.exists()


def test_a_step_notes_whose_it_is_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    settings = LineageSettings(lineage_dir=tmp_path)
    job = Job("csv-take", BATCH, "x.py", (), ())
    with telling("dagster", settings=settings, is_alone=False) as teller, teller.told(lambda: job, Saying()):
        pass
    assert list(tmp_path.glob("dagster/open/*")) == []


def test_what_a_run_may_end_as_is_told() -> None:
    assert set(of_dagster.ENDS.values()) == {COMPLETE, FAIL, ABORT}
    assert Dataset("results_db", ("public", "csv_sales")) == CSV_SALES
