"""Files and polls by runs of Dagster, on real servers: exactly once, visible, and with the sources' messages."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psutil
import pytest
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import GrpcServerTarget

import sources.csv.ingest
from contracts.settings import CsvSettings, ResultsDbSettings, SoapSettings
from contracts.topics import PAYMENT_CONFIRMATIONS, PUBLIC, SALES_EVENTS, SOURCE_POSITIONS, Topic
from electrored_dagster.definitions import definitions
from electrored_dagster.defs.sources.csv import csv_inbox
from kafka_client import clients
from kafka_client.errors import Retriable
from lineage.emitter import COMPLETE, FAIL, START
from simulators.payments import envelope
from simulators.payments.envelope import SoapFault
from sources.csv.inbox import Inbox
from sources.csv.source import Topics
from sources.soap.poll import PAGE
from stack.embedded import Embedded
from stack.ports import Ports
from tests.support import openlineage as validity
from tests.support.code_server import code_server
from tests.support.csv_desk import Desk, row
from tests.support.kafka import committed_values, topic_codec
from tests.support.soap_server import Reply, Server, entry, serving
from tests.support.waiting import wait_until

CSV_SALES = dg.AssetKey(["results_db", "public", "csv_sales"])
CONFIRMATIONS = dg.AssetKey(["kafka", "payment-confirmations"])
DEADLINE_SECONDS = 120.0


@cache
def job_of(name: str) -> dg.JobDefinition:
    return definitions().resolve_job_def(name)


@dataclass
class Platform:
    """Real topics of all tests here, a results database and an inbox of its own, set in the environment."""

    stack: Embedded
    desk: Desk
    instance: dg.DagsterInstance

    def run(self, job: str, config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        made = job_of(job)
        return made.execute_in_process(run_config=config, instance=self.instance, raise_on_error=False)

    def look(self, cursor: str | None = None) -> dg.SensorResult:
        """A tick of the sensor."""
        context = dg.build_sensor_context(instance=self.instance, cursor=cursor)
        found = csv_inbox(context)
        assert isinstance(found, dg.SensorResult)
        return found

    def log(self, topic: Topic) -> list[tuple[bytes, Any]]:
        """Keys and records of all that is committed now; what other tests wrote may be no records."""
        codec = topic_codec(self.stack.kafka, topic)
        return [
            (key, codec.decode(value))
            for key, value in committed_values(self.stack.kafka, topic)
            if value is not None and value[:1] == b"\0"
        ]

    def sales(self, mark: str) -> list[dict[str, Any]]:
        """The events of one test."""
        return [event for _, event in self.log(SALES_EVENTS) if event["sale_id"].startswith(f"sale-{mark}")]

    def positions(self) -> dict[bytes, Any]:
        return {key: record for key, (_, record) in self.log(SOURCE_POSITIONS)}

    def last(self, key: dg.AssetKey) -> dict[str, Any]:
        """The numbers that the last run left on an asset."""
        event = self.instance.get_latest_materialization_event(key)
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture
def platform(
    stack: Embedded,
    results_db: ResultsDbSettings,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Platform:
    clients.ensure_topics(stack.kafka, PUBLIC)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for name, value in {
        "KAFKA_BOOTSTRAP": stack.kafka.kafka_bootstrap,
        "SCHEMA_REGISTRY_URL": stack.kafka.schema_registry_url,
        "RESULTS_DB_URL": results_db.results_db_url.get_secret_value(),
        "CSV_INBOX": str(inbox),
        "CSV_SETTLE_SECONDS": "0",
        "CSV_EVERY_SECONDS": "0.01",
    }.items():
        monkeypatch.setenv(f"ELECTRORED_{name}", value)
    desk = Desk(stack, results_db, CsvSettings(), Topics())
    return Platform(stack, desk, instance)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as found:
        soap: SoapSettings = found.settings()
        monkeypatch.setenv("ELECTRORED_SOAP_WSDL", soap.soap_wsdl)
        monkeypatch.setenv("ELECTRORED_SOAP_USERNAME", soap.soap_username)
        monkeypatch.setenv("ELECTRORED_SOAP_PASSWORD", soap.soap_password.get_secret_value())
        yield found


@pytest.fixture
def mark() -> str:
    """Sale ids of one test begin with it."""
    return uuid4().hex[:8]


def rows(mark: str, numbers: Iterable[int], **changes: str) -> list[dict[str, str]]:
    return [row(f"{mark}-{number}", **changes) for number in numbers]


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The message of the one failed step."""
    (event,) = [event for event in result.all_node_events if event.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    return error.message


def test_a_dropped_file_is_in_the_log_by_a_run_that_the_sensor_asks_for(
    platform: Platform, mark: str
) -> None:
    assert platform.look().run_requests == []
    platform.desk.put(
        f"sales_{mark}.csv", [*rows(mark, range(4)), *rows(mark, [3]), *rows(mark, [9], amount="x")]
    )
    asked = platform.look()
    assert len(asked.run_requests or []) == 1
    (waiting,) = asked.asset_events
    assert waiting.asset_key.to_user_string() == "files/inbox"
    assert waiting.metadata["waiting"].value == 1

    assert platform.run("csv_take").success
    assert Counter(event["sale_id"] for event in platform.sales(mark)) == {
        f"sale-{mark}-{number}": 1 for number in range(4)
    }
    shown = platform.last(CSV_SALES)
    numbers = ("files", "rows", "accepted", "duplicates", "corrections", "rejected", "amount")
    assert [shown[name] for name in numbers] == [1, 6, 4, 1, 0, 1, {"EUR": "79.9600"}]
    assert [record.data["sale_id"] for record in shown["preview"].records] == [
        f"sale-{mark}-{number}" for number in range(4)
    ]
    assert shown["rows_per_second"] > 0
    assert platform.look(asked.cursor).run_requests == [], "nothing waits"


def test_rows_that_were_refused_and_files_that_are_none_fail_the_check(platform: Platform, mark: str) -> None:
    platform.desk.put(f"sales_{mark}.csv", [*rows(mark, range(5)), *rows(mark, [7], amount="x")])
    (platform.desk.inbox / f"sales_{mark}_link.csv").symlink_to("/etc/hostname")
    result = platform.run("csv_take")
    assert result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["oldest_waiting_file"].passed
    assert not checks["reject_rate"].passed
    assert checks["reject_rate"].metadata["rate"].value == 1 / 6
    assert "a symbolic link" in (checks["reject_rate"].description or "")


def test_a_wrong_file_is_taken_back(platform: Platform, mark: str) -> None:
    name = f"sales_{mark}.csv"
    platform.desk.put(name, rows(mark, range(3)))
    assert platform.run("csv_take").success
    config = {"ops": {"retract_file": {"config": {"file": name}}}}
    assert platform.run("csv_retract", config).success
    assert sum(event["amount"] for event in platform.sales(mark)) == 0
    assert len(platform.sales(mark)) == 6
    (told,) = platform.instance.fetch_observations(CSV_SALES, limit=1).records
    assert told.asset_observation is not None
    assert told.asset_observation.metadata["taken_back"].value == 3
    again = platform.run("csv_retract", config)
    assert f"{name} is not among the files that were taken; it is RETRACTED" in failure(again)


def test_taking_a_file_back_is_a_run_as_taking_it_is_by_dagster_and_by_hand(
    platform: Platform, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    for name, value in {"TYPE": "file", "LOG_FILE_PATH": str(told), "APPEND": "true"}.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    names = [f"sales_{mark}_{number}.csv" for number in range(2)]
    for number, name in enumerate(names):
        platform.desk.put(name, rows(mark, range(number * 3, number * 3 + 3)))
    assert platform.run("csv_take").success
    taken_back = platform.run("csv_retract", {"ops": {"retract_file": {"config": {"file": names[0]}}}})
    assert taken_back.success
    command = [sys.executable, "-m", "sources", "csv", "retract"]
    for file, code in ((names[1], 0), (names[1], 2)):
        done = subprocess.run([*command, file], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
        assert done.returncode == code, done.stderr
    events = [json.loads(line) for line in told.read_text().splitlines()]
    for event in events:
        validity.check(event)
    events = [event for event in events if event["job"]["name"] == "csv-retract"]
    assert [event["eventType"] for event in events] == [START, COMPLETE, START, COMPLETE, START, FAIL]
    by_dagster, by_hand, failed = events[1], events[3], events[5]
    assert by_dagster["run"]["facets"]["parent"]["run"]["runId"] == taken_back.run_id
    assert "it is RETRACTED" in failed["run"]["facets"]["errorMessage"]["message"]
    for event in (by_dagster, by_hand):
        assert [one["name"].rpartition(".")[2] for one in event["inputs"]] == ["csv_sales"]
        (log,) = (one for one in event["outputs"] if one["name"] == SALES_EVENTS.name)
        assert log["outputFacets"]["outputStatistics"]["rowCount"] == 3
        assert log["facets"]["columnLineage"]["fields"]["amount"]["inputFields"][0]["field"] == "amount"


def test_what_may_pass_is_tried_again_within_the_run(
    platform: Platform, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = sources.csv.ingest.take, [Retriable("Kafka: away")]

    def take(*arguments: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return real(*arguments, **named)

    monkeypatch.setattr(sources.csv.ingest, "take", take)
    platform.desk.put(f"sales_{mark}.csv", rows(mark, range(2)))
    result = platform.run("csv_take")
    assert result.success
    assert "STEP_UP_FOR_RETRY" in {event.event_type_value for event in result.all_node_events}
    assert len(platform.sales(mark)) == 2


def test_what_needs_a_person_is_not_tried_again(platform: Platform, mark: str) -> None:
    platform.desk.put(f"sales_{mark}.csv", rows(mark, range(2)))
    (platform.desk.inbox / ".taking").mkdir()
    # As another process would, for longer than the run lasts.
    with Inbox(platform.desk.inbox, 0).held():
        result = platform.run("csv_take")
    assert "another process is taking the files" in failure(result)
    assert platform.sales(mark) == []
    assert platform.instance.get_latest_materialization_event(CSV_SALES) is None


@pytest.mark.soak
def test_a_run_that_is_killed_in_the_middle_of_a_file_is_gone_on_with_by_the_next(
    platform: Platform, mark: str
) -> None:
    """kill -9 of the run's process: it fails by itself, the sensor asks for another, and every row counts once."""
    count = 150_000
    platform.desk.put(f"sales_{mark}.csv", rows(mark, range(count)))
    port = Ports.free().dagster_code
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="electrored")
    with code_server(port) as server, WorkspaceProcessContext(platform.instance, target) as workspace:
        asked = platform.look()
        assert asked.run_requests
        killed = launch(platform, workspace.create_request_context(), "csv_take")
        wait_until(lambda: half_taken(platform, f"sales_{mark}.csv"))
        assert platform.look(asked.cursor).skip_reason.skip_message == "a run is on its way"  # type: ignore[union-attr]
        kill_runs(server)
        assert end_of(platform, killed) == dg.DagsterRunStatus.FAILURE
        taken = len(platform.sales(mark))
        assert 0 < taken < count

        again = wait_until(lambda: platform.look(asked.cursor).run_requests)
        assert len(again) == 1
        went_on = launch(platform, workspace.create_request_context(), "csv_take")
        assert end_of(platform, went_on) == dg.DagsterRunStatus.SUCCESS
    sold = Counter(event["sale_id"] for event in platform.sales(mark))
    assert len(sold) == count
    assert set(sold.values()) == {1}
    assert platform.last(CSV_SALES)["rows"] == count - taken, "it went on at the row behind"
    assert platform.look(asked.cursor).run_requests == []


def launch(platform: Platform, request: WorkspaceRequestContext, name: str) -> str:
    """As the daemon does it for a sensor or a schedule."""
    repository = request.get_code_location("electrored").get_repository("__repository__")
    job = repository.get_full_job(name)
    run = platform.instance.create_run_for_job(
        job_of(name), remote_job_origin=job.get_remote_origin(), job_code_origin=job.get_python_origin()
    )
    platform.instance.launch_run(run.run_id, request)
    return run.run_id


def kill_runs(server: subprocess.Popen[bytes]) -> None:
    for child in psutil.Process(server.pid).children(recursive=True):
        child.kill()


def end_of(platform: Platform, run_id: str) -> dg.DagsterRunStatus:
    """How a run ended; waits for it."""

    def ended() -> dg.DagsterRunStatus | None:
        run = platform.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status if run.status in FINISHED_STATUSES else None

    return wait_until(ended)


def half_taken(platform: Platform, name: str) -> bool:
    return any(
        record["state"] == "TAKING" and record["rows"] > 0
        for key, record in platform.positions().items()
        if key.startswith(b"csv/file/") and record["name"] == name
    )


def test_a_fault_fails_the_run_in_its_own_words_and_the_cursor_stays(
    platform: Platform, server: Server
) -> None:
    before = platform.positions().get(b"soap")
    server.gives(Reply(envelope.fault(SoapFault("soap:Server", "closed for the night")), 500))
    result = platform.run("soap_poll")
    assert not result.success
    assert "closed for the night" in failure(result)
    assert len(server.posts) == 1, "it is not asked again"
    assert platform.instance.get_latest_materialization_event(CONFIRMATIONS) is None
    assert platform.positions().get(b"soap") == before

    server.has([entry(1), entry(2, currency="USD")])
    assert platform.run("soap_poll").success
    shown = platform.last(CONFIRMATIONS)
    names = ("pages", "confirmations", "dead_letters", "amount", "cursor_after")
    assert [shown[name] for name in names] == [1, 2, 0, {"EUR": "1.5000", "USD": "2.5000"}, "2"]
    found = [
        record for _, record in platform.log(PAYMENT_CONFIRMATIONS) if record["payment_id"] in ("p1", "p2")
    ]
    assert sorted(record["amount"] for record in found) == [Decimal("1.5"), Decimal("2.5")]


def test_row_20_a_page_of_nothing_good_fails_run_and_check_and_is_asked_for_again(
    platform: Platform, server: Server, mark: str
) -> None:
    def check() -> tuple[bool, str, dict[str, Any]]:
        (record,) = platform.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(CONFIRMATIONS, "records_are_good"), limit=1
        )
        assert record.event is not None
        assert record.event.dagster_event is not None
        found = record.event.dagster_event.asset_check_evaluation_data
        metadata = {name: value.value for name, value in found.metadata.items()}
        return found.passed, found.description or "", metadata

    known = platform.positions().get(b"soap")
    first = int(json.loads(known["detail"])["cursor"]) if known else 0
    earlier = [entry(n) for n in range(first)]
    bad = [entry(n, payment_id=f"{mark}-{n}", status="PAID") for n in range(3)]
    good = [entry(n, payment_id=f"{mark}-{n}") for n in range(4)]
    server.has(earlier + bad)
    result = platform.run("soap_poll")
    assert not result.success
    assert "3 of 3 records are no confirmations" in failure(result)
    passed, said, _ = check()
    assert (passed, "3 of 3 records" in said) == (False, True)
    assert payments(platform, mark) == []

    server.has(earlier + bad + good[3:])
    asked = {"ops": {"poll_payment_service": {"config": {"set_aside": True}}}}
    assert platform.run("soap_poll", asked).success
    passed, said, shown = check()
    assert (passed, shown) == (False, {"dead_letters": 3, "cursor_before": str(first) if first else ""})
    assert "electrored soap poll --from" in said

    server.has(earlier + good)
    asked = {"ops": {"poll_payment_service": {"config": {"from_cursor": shown["cursor_before"]}}}}
    assert platform.run("soap_poll", asked).success
    assert check()[0]
    assert Counter(payments(platform, mark)) == Counter(
        {f"{mark}-{n}": 1 for n in range(3)} | {f"{mark}-3": 2}
    )


@pytest.mark.soak
def test_a_run_that_is_killed_in_the_middle_of_a_page_is_gone_on_with_by_the_next(
    platform: Platform, server: Server, mark: str
) -> None:
    """kill -9 while a page is on its way: what was committed stays, the page comes again, each payment counts once."""
    known = platform.positions().get(b"soap")
    already = int(json.loads(known["detail"])["cursor"]) if known else 0
    entries = [entry(n, payment_id=f"{mark}-{n}") for n in range(already + 2 * PAGE)]
    server.has(entries)
    whole, asked, held = server.answer, threading.Event(), threading.Event()

    def page(cursor: str, limit: int) -> Reply:
        if cursor == str(already + PAGE):
            asked.set()
            held.wait(DEADLINE_SECONDS)
        return whole(cursor, limit)

    server.answer = page
    port = Ports.free().dagster_code
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="electrored")
    with code_server(port) as runs, WorkspaceProcessContext(platform.instance, target) as workspace:
        killed = launch(platform, workspace.create_request_context(), "soap_poll")
        assert asked.wait(DEADLINE_SECONDS)
        kill_runs(runs)
        held.set()
        assert end_of(platform, killed) == dg.DagsterRunStatus.FAILURE
        assert len(payments(platform, mark)) == PAGE
        went_on = launch(platform, workspace.create_request_context(), "soap_poll")
        assert end_of(platform, went_on) == dg.DagsterRunStatus.SUCCESS
    assert Counter(payments(platform, mark)) == {found[0]: 1 for found in entries[already:]}
    assert platform.last(CONFIRMATIONS)["confirmations"] == PAGE


def payments(platform: Platform, mark: str) -> list[str]:
    ids = (record["payment_id"] for _, record in platform.log(PAYMENT_CONFIRMATIONS))
    return [payment_id for payment_id in ids if payment_id.startswith(mark)]
