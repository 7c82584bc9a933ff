"""A real Prometheus watches the platform: dashboards have data, a healthy platform is quiet, and causes raise alerts.

Rules and dashboards are those of the repository. What takes long for a reason (`for`, ages, sizes) is made short.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from confluent_kafka import Producer

from contracts.topics import GenerationTopics
from stack import ports
from tests.e2e.alerts import DISK_BYTES, RULES, Prometheus, shortened
from tests.e2e.causes import (
    ask_api,
    copy_an_event,
    drop_slot,
    filled_disk,
    forget_position,
    frozen,
    kept_otherwise,
    kill,
    lose_a_broker,
    negative_group,
    open_transaction,
    refuse_lineage,
    results,
    slot_taken,
    slow_answers,
    stopped,
)
from tests.e2e.command import PROJECT, Platform, new_platform, remove, until
from tests.e2e.runs import cancel, end_of, launch

CITY, SALESMAN = "top-sales-by-city", "top-salesman-by-country"
# Of a process or server, or of a recording rule.
METRIC = re.compile(r"\b(?:(?:electrored|kafka|jvm|process)_\w+|[a-z_]+:\w+:\w+)")
# In the rules' time: several of each shortened `for` and many probes of the observer.
QUIET_SECONDS = 20
# A panel shows 0 instead of no data. A test queries without it, so that a metric that is never emitted fails.
SHOWN_AS_0 = " or vector(0)"
# Nothing of the kind has happened yet on a platform that has just begun, and may never.
MAY_BE_EMPTY = {"overview: Alerts that fire", "sources: Dead letters"}
DASHBOARDS = PROJECT / "observability" / "grafana" / "dashboards"
INSERT = (
    "insert into public.sales (sale_id, sold_at, city, country, salesman_id, salesman_name, product, quantity, "
    "amount, currency) select coalesce(%s, gen_random_uuid()::text), now(), 'Berlin', 'DE', 's-1', 'Ada', 'Lamp', 1, "
    "1, 'EUR' from generate_series(1, %s)"
)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """Of this module's own: here the simulators sell, drop files and confirm payments."""
    # Emits so often that events soon wait for a backend that is away.
    made = replace(new_platform(), settings={"ELECTRORED_LINEAGE_EVERY_SECONDS": "2"})
    try:
        made.up("--history-days", "1")
        yield made
    finally:
        remove(made)


@pytest.fixture(scope="module")
def prometheus(platform: Platform) -> Iterator[Prometheus]:
    """Debian's server with the configuration that `up` wrote, asking every second."""
    with tempfile.TemporaryDirectory(prefix="electrored-prometheus-") as name, ExitStack() as cleanup:
        folder = Path(name)
        for path in RULES.glob("*.rules.yml"):
            (folder / path.name).write_text(shortened(path.read_text(), platform.folder))
        config = (platform.folder.resolve() / "prometheus" / "prometheus.yml").read_text()
        config = config.replace(str(RULES), str(folder)).replace("_interval: 15s", "_interval: 1s")
        (folder / "prometheus.yml").write_text(config)
        (port,) = ports.free(1)
        log = cleanup.enter_context((folder / "log").open("w"))
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        cleanup.callback(process.wait, 30)
        cleanup.callback(process.terminate)
        made = Prometheus(port)
        until(made.is_ready, 60, "Prometheus")
        until(lambda: len(made.query("up == 1")) == 9, 60, "every process scraped")
        yield made


def rules() -> list[dict[str, Any]]:
    """Those that record, and the alerts."""
    files = [yaml.safe_load(path.read_text()) for path in RULES.glob("*.rules.yml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def panels() -> list[tuple[str, str]]:
    """Each query of each panel, its variables set to everything, without the 0 that it shows instead of nothing."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text())
        variables = {one["name"]: one["allValue"] for one in dashboard["templating"]["list"]}
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                for name, value in variables.items():
                    expression = expression.replace(f"${name}", value)
                found.append((f"{path.stem}: {panel['title']}", expression.removesuffix(SHOWN_AS_0)))
    return found


@pytest.mark.timeout(900)
def test_every_panel_has_data(platform: Platform, prometheus: Prometheus) -> None:
    # Of polls and intakes a panel shows those that ended: here one does.
    assert end_of(platform, launch(platform, "soap_poll")) == "SUCCESS"
    asked = panels()
    assert len(asked) > 50
    assert not any("$" in expression or "vector(" in expression for _, expression in asked)
    assert {title for title, _ in asked} >= MAY_BE_EMPTY
    without = {number: panel for number, panel in enumerate(asked) if panel[0] not in MAY_BE_EMPTY}

    def all_have() -> bool:
        # A rate needs answers between two scrapes.
        ask_api(platform)
        for number, (_, expression) in list(without.items()):
            values = [row["value"][1] for row in prometheus.query(expression)]
            if any(value != "NaN" for value in values):
                del without[number]
        return not without

    with suppress(AssertionError):
        # Dagster's first asset checks take longest.
        until(all_have, 90, "data of every panel")
    assert not without, "\n".join(f"{title}: {expression}" for title, expression in without.values())


@pytest.mark.timeout(400)
def test_a_platform_that_works_is_quiet(platform: Platform, prometheus: Prometheus) -> None:
    """It sells, takes files, and has asked for payments: those of a day at once, and lag for a moment."""
    assert end_of(platform, launch(platform, "soap_poll")) == "SUCCESS"
    with suppress(AssertionError):
        until(lambda: not prometheus.firing(), 30, "silence")
    looked_until = time.time() + QUIET_SECONDS
    looks = f"min(electrored_look_timestamp_seconds) > {looked_until}"
    until(lambda: bool(prometheus.query(looks)), 2 * QUIET_SECONDS, "looks at everything for so long")
    assert prometheus.fired(QUIET_SECONDS) == set()


def test_every_process_tells_metrics_as_prometheus_wants_them(prometheus: Prometheus) -> None:
    targets = {row["metric"]["process"]: row["metric"]["instance"] for row in prometheus.query("up")}
    # Kafka's figures have the names of its beans.
    ours = targets.keys() - {"kafka"}
    assert len(ours) == 8
    for process in sorted(ours):
        with urllib.request.urlopen(f"http://{targets[process]}/metrics", timeout=10) as answer:
            told = answer.read()
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=told, capture_output=True, timeout=30
        )
        assert (checked.returncode, checked.stderr) == (0, b""), f"{process}: {checked.stderr.decode()}"


@pytest.fixture(scope="module")
def causes(platform: Platform, prometheus: Prometheus) -> None:
    """Each cause but an outage of a server, until its alert is raised; what takes long goes on beside the rest."""
    with ExitStack() as causes:
        sales = causes.enter_context(closing(platform.connect()))
        cursor = sales.cursor()
        # Polls fail after one that did not.
        assert end_of(platform, launch(platform, "soap_poll")) == "SUCCESS"
        # A total is wrong, and the payment service is away.
        _correct_by_hand(platform)
        check = launch(platform, "check_replays", checks=[(CITY, "replay_is_identical")])
        causes.enter_context(stopped(platform, "payments"))
        poll = launch(platform, "soap_poll")
        replayed = platform.run("replay", SALESMAN, "--reason", "a test")
        assert replayed.returncode == 0, replayed.stderr
        causes.enter_context(slot_taken(platform, SALESMAN, 2))
        assert end_of(platform, poll) == "FAILURE"
        assert end_of(platform, check) == "SUCCESS"
        # A nightly job is cancelled.
        cancel(platform, launch(platform, "retire_old_standbys"))
        # A file that is none, and a name that is not taken.
        inbox = Path(platform.addresses["ELECTRORED_CSV_INBOX"])
        (inbox / "sales_none.csv").write_text("no columns\n")
        (inbox / "sales-11.csv").write_text("sale_id\n")
        prometheus.raises("CsvFileRefused", "CsvFileUnrecognised")
        (inbox / "sales-11.csv").unlink()
        # No more files are taken; a sale of a file that was taken is sold again in the table.
        (known,) = _one(platform, "select sale_id from joined_sales where source = 'csv' limit 1")
        causes.enter_context(frozen(platform, "dagster-daemon"))
        (inbox / f"sales_{uuid4().hex[:8]}.csv").write_text("sale_id\n")
        cursor.execute(INSERT, (known, 1))
        # Foreign records.
        producer = Producer({"bootstrap.servers": platform.addresses["ELECTRORED_KAFKA_BOOTSTRAP"]})
        producer.produce("sales-events", b"no event at all", key=b"x")
        assert producer.flush(30) == 0
        copy_an_event(platform)
        causes.enter_context(filled_disk(platform.folder, 2 * DISK_BYTES))
        with negative_group(platform, CITY):
            prometheus.raises(
                "DeadLetters", "SalesInSeveralSources", "NegativeGroups", "DiskFillsUp", "CandidateWaits"
            )
        prometheus.raises("DuplicatesUnexplained")
        with frozen(platform, "worker-city"):
            began = time.monotonic()
            while time.monotonic() < began + 15:
                cursor.execute(INSERT, (None, 100))
                time.sleep(0.2)
            prometheus.raises("ProcessDown", "WatermarkStandsStill", "LagGrows")
            assert _row(platform, "worker-city")["state"] == "silent"
        prometheus.raises("ProducerFenced", "TransactionsFail")
        for _ in range(2):
            kill(platform, "publisher", prometheus)
        prometheus.raises("ProcessRestarting")
        # Row 28: it ended often enough, and runs.
        until(lambda: _row(platform, "publisher")["state"] == "ready", 60, "the publisher")
        letters = platform.run("dead-letters").stdout
        assert len(re.findall(r"^sales-events partition \d+ offset", letters, re.MULTILINE)) == 1, letters
        # The slot retains what capture has not confirmed, and capture cannot report it.
        with frozen(platform, "capture"):
            for _ in range(40):
                cursor.execute("select pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
            prometheus.raises("CaptureStandsStill", "SlotRetainsWal")
        refuse_lineage(platform, "sink")
        slow_answers(platform, prometheus)
        prometheus.raises("CsvFileWaits", "PaymentPollsFail", "ReplayDiffers", "GenerationFailed")
        prometheus.raises("LineageRefused", "NightlyJobFails")
        with kept_otherwise(platform, "late-events"):
            prometheus.raises("TopicNotKept")
    with frozen(platform, "observer"):
        prometheus.raises("ObserverBlind")


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("causes")
def test_each_cause_raises_its_alert(prometheus: Prometheus) -> None:
    assert {"CsvFileRefused", "ObserverBlind"} <= raised(prometheus), "the first and the last"


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_rows_24_27_28_what_does_not_move_says_why_and_goes_on(platform: Platform) -> None:
    """A refusal at its first end, and a foreign transaction; `status` exits with 1 meanwhile."""
    state = GenerationTopics(CITY, 1).state.name
    with kept_otherwise(platform, state):
        pid = platform.pid("worker-city")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: _row(platform, "worker-city")["state"] == "refused", 60, "the refusal")
        problem = _row(platform, "worker-city")["problem"]
        assert problem.startswith(f"topic {state}: cleanup.policy is delete and has to be compact; ")
        shown = platform.run("status")
        assert shown.returncode == 1
        assert f"worker-city refuses to go on: topic {state}" in shown.stdout
    until(lambda: _row(platform, "worker-city")["state"] == "ready", 120, "the worker, by itself")
    with open_transaction(platform, "payment-confirmations"):
        until(lambda: _row(platform, "worker-enriched")["state"] == "waiting", 60, "the wait")
        problem = _row(platform, "worker-enriched")["problem"]
        said = "topic payment-confirmations partition 0: a transaction of producer id "
        assert said in problem, problem
    until(lambda: _row(platform, "worker-enriched")["state"] == "ready", 60, "the end of the wait")


def _row(platform: Platform, name: str) -> dict[str, Any]:
    return next(row for row in platform.status()["processes"] if row["name"] == name)


def _correct_by_hand(platform: Platform) -> None:
    """Change a total of a day that gets no sales any more."""
    with closing(results(platform)) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "update city_totals set total = total + 1 where ctid = (select ctid from city_totals "
            "where generation = (select generation from active_generations where pipeline = %s) "
            "order by window_start limit 1)",
            (CITY,),
        )
        assert cursor.rowcount == 1
        cursor.execute("update generations set apply_number = apply_number + 1 where pipeline = %s", (CITY,))


@pytest.fixture(scope="module")
def outages(platform: Platform, prometheus: Prometheus) -> None:
    """Servers that are away, until their alerts are raised."""
    lose_a_broker(platform)
    prometheus.raises("KafkaPartitionsOffline")
    with stopped(platform, "postgres"):
        down = ("ResultsDatabaseDown", "ApiErrors", "ProcessWaits")
        until(lambda: _asked(platform, prometheus, *down), 60, "the alerts")
    with stopped(platform, "kafka"):
        prometheus.raises("KafkaDown", "LineageWaits")
    until(lambda: not {"KafkaDown", "LineageWaits"} & prometheus.firing(), 60, "the end of the alerts")
    with stopped(platform, "capture"):
        drop_slot(platform)
        prometheus.raises("SlotLost")
        forget_position(platform, "postgres")
        prometheus.raises("SnapshotStandsStill")


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("outages")
def test_servers_that_are_away_raise_alerts(prometheus: Prometheus) -> None:
    assert {"KafkaPartitionsOffline", "SnapshotStandsStill"} <= raised(prometheus), "the first and the last"


@pytest.mark.soak
@pytest.mark.timeout(2100)
@pytest.mark.usefixtures("causes", "outages")
def test_every_metric_that_is_asked_for_is_told(prometheus: Prometheus) -> None:
    """Those of alerts too, which are silent without it."""
    expressions = [rule["expr"] for rule in rules()] + [expression for _, expression in panels()]
    asked = {name for expression in expressions for name in METRIC.findall(expression)}
    assert len(asked) > 50
    assert asked - prometheus.names() == set()


@pytest.mark.soak
@pytest.mark.timeout(2100)
@pytest.mark.usefixtures("causes", "outages")
def test_panels_that_may_be_empty_had_data_when_something_happened(prometheus: Prometheus) -> None:
    for title, expression in panels():
        if title in MAY_BE_EMPTY:
            assert prometheus.query(f"last_over_time(({expression})[1h:1s])"), f"{title}: {expression}"


@pytest.mark.soak
@pytest.mark.timeout(2100)
@pytest.mark.usefixtures("causes", "outages")
def test_every_alert_was_raised(prometheus: Prometheus) -> None:
    """By the real server, in this module: an alert that neither fixture provokes is missing here."""
    assert raised(prometheus) == {rule["alert"] for rule in rules() if "alert" in rule}


def raised(prometheus: Prometheus) -> set[str]:
    """What fired since the server began."""
    return prometheus.fired(3600)


def _asked(platform: Platform, prometheus: Prometheus, *names: str) -> bool:
    ask_api(platform)
    return set(names) <= prometheus.firing()


def _one(platform: Platform, question: str) -> Sequence[Any]:
    with closing(results(platform)) as connection:
        cursor = connection.cursor()
        found: list[Sequence[Any]] = []

        def is_there() -> bool:
            cursor.execute(question)
            found.extend(cursor.fetchall())
            return bool(found)

        until(is_there, 90, question)
        return found[0]
