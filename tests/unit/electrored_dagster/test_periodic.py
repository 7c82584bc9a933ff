"""What Dagster starts by itself, and when it does not; and what a run reports of errors and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from contracts.settings import KafkaSettings
from electrored_dagster.defs.sources.csv import csv_inbox
from electrored_dagster.defs.sources.soap import poll_payments
from electrored_dagster.metadata import (
    NotSet,
    as_dagster_failure,
    files_agree,
    polled,
    reject_rate,
    settings,
    taken,
)
from kafka_client.errors import ElectroRedError, Fenced, Refused, Retriable
from sources.csv.results import Counts, FileResult, Taking
from sources.soap.poll import Result
from tests.support.python_process import run_python

SOAP = {"WSDL": "http://127.0.0.1/payments", "USERNAME": "me", "PASSWORD": "mine"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SOAP.items():
        monkeypatch.setenv(f"ELECTRORED_SOAP_{name}", value)


def tick(instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    context = dg.build_schedule_context(instance, scheduled_execution_time=datetime.now(UTC))
    found = poll_payments(context)
    assert isinstance(found, (dg.RunRequest, dg.SkipReason))
    return found


@pytest.mark.usefixtures("service")
def test_the_payment_service_is_polled(instance: dg.DagsterInstance) -> None:
    assert isinstance(tick(instance), dg.RunRequest)


@pytest.mark.usefixtures("service")
def test_no_second_poll_is_started_beside_one(instance: dg.DagsterInstance) -> None:
    for name, found in (("prune_history", dg.RunRequest), ("soap_poll", dg.SkipReason)):
        instance.add_run(dg.DagsterRun(job_name=name, status=dg.DagsterRunStatus.STARTED))
        assert isinstance(tick(instance), found)


def test_without_a_payment_service_nothing_is_polled(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SOAP:
        monkeypatch.delenv(f"ELECTRORED_SOAP_{name}", raising=False)
    found = tick(instance)
    assert isinstance(found, dg.SkipReason)
    assert "ELECTRORED_SOAP_WSDL: Field required" in (found.skip_message or "")


def test_without_an_inbox_nothing_is_looked_at(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ELECTRORED_CSV_INBOX", raising=False)
    assert "ELECTRORED_CSV_INBOX: Field required" in Inbox(instance).look()[1]


@dataclass
class Inbox:
    """The sensor, tick by tick."""

    instance: dg.DagsterInstance
    cursor: str | None = None

    def look(self) -> tuple[list[tuple[str, bool]], str]:
        """Checks by name and whether they passed, and why no run is requested."""
        result = csv_inbox(dg.build_sensor_context(self.instance, cursor=self.cursor))
        assert isinstance(result, dg.SensorResult)
        assert isinstance(result.skip_reason, dg.SkipReason)
        self.cursor = result.cursor
        checks = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
        return [(check.check_name, check.passed) for check in checks], result.skip_reason.skip_message or ""


def test_a_file_that_waits_for_long_is_reported_once(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted: list[tuple[str, bool]] = []
    monkeypatch.setenv("ELECTRORED_CSV_INBOX", str(tmp_path))
    monkeypatch.setattr("electrored_dagster.csv_policy.OLD", -datetime.resolution)
    monkeypatch.setattr(
        "electrored_dagster.defs.sources.csv.emit_checks",
        lambda _, sensor, checks: emitted.extend(
            (f"{sensor}.{one.check_name}", one.passed) for one in checks
        ),
    )
    (tmp_path / "sales_1.csv").write_text("sale_id")

    inbox = Inbox(instance)
    assert inbox.look()[0] == [("oldest_waiting_file", False)]
    assert inbox.look()[0] == []
    assert emitted == [("csv_inbox.oldest_waiting_file", False)], "as lineage, too"
    (tmp_path / "sales_1.csv").unlink()
    monkeypatch.undo()
    monkeypatch.setenv("ELECTRORED_CSV_INBOX", str(tmp_path))
    assert inbox.look()[0] == [("oldest_waiting_file", True)]


def test_row_13_names_that_are_not_recognised_are_reported_when_they_change(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELECTRORED_CSV_INBOX", str(tmp_path))
    look = Inbox(instance).look
    (tmp_path / "sales-11.csv").write_text("a\n")
    checks, reason = look()
    assert checks == [("names_recognised", False)]
    assert "nothing waits; not recognised, and never taken under these names: sales-11.csv" in reason
    assert look()[0] == []
    (tmp_path / "sales-12.csv").write_text("a\n")
    assert look()[0] == [("names_recognised", False)]
    (tmp_path / "sales-11.csv").unlink()
    (tmp_path / "sales-12.csv").unlink()
    assert look() == ([("names_recognised", True)], "nothing waits")


def test_row_17_the_worst_file_decides() -> None:
    """Of one run: all of 60 rows refused beside 600 good ones; and few of many beside many of few."""
    good = FileResult("sales_good.csv", "taken", counts=Counts(600, accepted=600))
    vain = FileResult("sales_bad.csv", "taken", counts=Counts(60, rejected=60))
    check = reject_rate(Taking((good, vain), good.counts + vain.counts, 0.1))
    assert not check.passed
    assert (check.metadata["rate"].value, check.metadata["files_in_vain"].value) == (1.0, 1)
    assert "sales_bad.csv: nothing of it counts, all 60 rows were refused" in (check.description or "")
    some = FileResult("sales_some.csv", "taken", counts=Counts(10, accepted=8, rejected=2))
    check = reject_rate(Taking((good, some), good.counts + some.counts, 0.1))
    assert not check.passed
    assert "sales_some.csv: 2 of 10 rows were refused" in (check.description or "")
    few = FileResult("sales_few.csv", "taken", counts=Counts(20, accepted=18, rejected=2))
    empty = FileResult("sales_empty.csv", "taken")
    assert reject_rate(Taking((good, few, empty), good.counts + few.counts, 0.1)).passed


def test_row_14_files_of_one_time_that_disagree_fail_the_check() -> None:
    file = FileResult("sales_10.csv", "taken", disagrees={"sales_9.csv": 1})
    check = files_agree(Taking((file,), Counts(), 0.1))
    assert not check.passed
    assert "sales_10.csv with sales_9.csv about 1 sales" in (check.description or "")
    assert files_agree(Taking((FileResult("sales_1.csv", "taken"),), Counts(), 0.1)).passed


@pytest.mark.parametrize(("error", "again"), [(Retriable, True), (Refused, False), (Fenced, False)])
def test_only_what_may_pass_is_tried_again(error: type[ElectroRedError], again: bool) -> None:
    with pytest.raises(dg.Failure) as raised, as_dagster_failure():
        raise error("the words")
    assert raised.value.description == "the words"
    assert raised.value.allow_retries is again


def test_a_setting_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELECTRORED_KAFKA_BOOTSTRAP", raising=False)
    with pytest.raises(NotSet, match="ELECTRORED_KAFKA_BOOTSTRAP: Field required"):
        settings(KafkaSettings)


def test_settings_of_which_a_part_is_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BOOTSTRAP", "b:1"), ("SASL_MECHANISM", "OAUTHBEARER"), ("OAUTH_TOKEN_URL", "")):
        monkeypatch.setenv(f"ELECTRORED_KAFKA_{name}", value)
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", "http://r:1")
    with pytest.raises(NotSet, match="OAUTHBEARER needs ELECTRORED_KAFKA_OAUTH_TOKEN_URL"):
        settings(KafkaSettings)


def test_numbers_of_a_run_that_found_nothing() -> None:
    nothing = Taking((), Counts(), 0.0)
    assert reject_rate(nothing).passed
    metadata = taken(nothing)
    assert (metadata["files"], metadata["rows"], metadata["rows_per_second"]) == (0, 0, 0)
    assert "preview" not in metadata


def test_a_file_that_could_not_be_opened_fails_the_check() -> None:
    file = FileResult("sales_1.csv", "refused", reason="it cannot be read: Permission denied")
    check = reject_rate(Taking((file,), Counts(), 0.1))
    assert not check.passed
    assert "sales_1.csv was refused: it cannot be read: Permission denied" in (check.description or "")


def test_money_is_shown_exactly() -> None:
    metadata = polled(Result(1, 2, 0, {"EUR": Decimal("0.1000")}, "", "2", 0.5))
    assert metadata["amount"].value == {"EUR": "0.1000"}


def test_the_code_server_needs_neither_pandas_nor_a_soap_client() -> None:
    """The code server lives for ever: what only runs need is imported by runs."""
    code = (
        "import sys; from electrored_dagster.definitions import definitions; definitions(); "
        "print([name for name in ('pandas', 'polars', 'zeep') if name in sys.modules])"
    )
    done = run_python("-c", code, check=True)
    assert done.stdout.strip().endswith("[]")
