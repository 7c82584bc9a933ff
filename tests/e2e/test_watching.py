"""A real Prometheus watches the platform: dashboards have data, a healthy platform is quiet, and causes raise alerts.

Rules and dashboards are those of the repository. What takes long for a reason (`for`, ages, sizes) is made short.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg2
import pytest
from confluent_kafka import Producer

from contracts.settings import StackSettings
from stack import databases, ports
from stack.layout import Layout
from stack.programs import Platform as Programs
from stack.supervisor import Supervisor
from tests.e2e.alerts import FIRES_SECONDS, RULES, Prometheus, shortened
from tests.e2e.conftest import PROJECT, Platform, new_platform, remove, until

DASHBOARDS = PROJECT / "observability" / "grafana" / "dashboards"
INSERT = (
    "insert into public.sales (sale_id, sold_at, city, country, salesman_id, salesman_name, product, quantity, "
    "amount, currency) select coalesce(%s, gen_random_uuid()::text), now(), 'Berlin', 'DE', 's-1', 'Ada', 'Lamp', 1, "
    "1, 'EUR' from generate_series(1, %s)"
)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """Of this module's own: here the simulators sell, drop files and confirm payments."""
    made = new_platform()
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
        for rules in RULES.glob("*.rules.yml"):
            (folder / rules.name).write_text(shortened(rules.read_text()))
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


@contextmanager
def frozen(platform: Platform, name: str) -> Iterator[None]:
    """The process hangs until the block ends."""
    pid = platform.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ask_api(platform: Platform, times: int = 1) -> None:
    url = f"{platform.addresses['ELECTRORED_API_URL']}/api/v1/top-sales/by-city"
    for _ in range(times):
        with suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()


def panels() -> list[tuple[str, str]]:
    """Each query of each panel, its variables set to everything."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text())
        variables = {one["name"]: one["allValue"] for one in dashboard["templating"]["list"]}
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                for name, value in variables.items():
                    expression = expression.replace(f"${name}", value)
                found.append((f"{path.stem}: {panel['title']}", expression))
    return found


@pytest.mark.timeout(400)
def test_every_panel_has_data(platform: Platform, prometheus: Prometheus) -> None:
    asked = panels()
    assert len(asked) > 50
    assert not any("$" in expression for _, expression in asked)
    without = dict(enumerate(asked))

    def all_have() -> bool:
        # A rate needs answers between two scrapes.
        ask_api(platform)
        for number, (_, expression) in list(without.items()):
            values = [row["value"][1] for row in prometheus.query(expression)]
            if any(value != "NaN" for value in values):
                del without[number]
        return not without

    with suppress(AssertionError):
        until(all_have, 60, "data of every panel")
    assert not without, "\n".join(f"{title}: {expression}" for title, expression in without.values())


def test_a_platform_that_works_is_quiet(prometheus: Prometheus) -> None:
    assert prometheus.firing() == set()


@pytest.mark.timeout(400)
def test_each_cause_raises_its_alert(platform: Platform, prometheus: Prometheus) -> None:
    inbox = Path(platform.addresses["ELECTRORED_CSV_INBOX"])
    with ExitStack() as causes:
        sales = causes.enter_context(closing(platform.connect()))
        cursor = sales.cursor()
        # Nobody takes files any more; one that was taken has sales of which we sell one again.
        (known,) = _one(platform, "select sale_id from joined_sales where source = 'csv' limit 1")
        causes.enter_context(frozen(platform, "dagster-daemon"))
        (inbox / f"sales_{uuid4().hex[:8]}.csv").write_text("sale_id\n")
        cursor.execute(INSERT, (known, 1))
        # What nobody of ours writes.
        producer = Producer({"bootstrap.servers": platform.addresses["ELECTRORED_KAFKA_BOOTSTRAP"]})
        producer.produce("sales-events", b"no event at all", key=b"x")
        assert producer.flush(30) == 0
        prometheus.raises("DeadLetters", "SalesInSeveralSources")
        with frozen(platform, "worker-city"):
            began = time.monotonic()
            while time.monotonic() < began + 15:
                cursor.execute(INSERT, (None, 100))
                time.sleep(0.2)
            prometheus.raises("ProcessDown", "WatermarkStandsStill", "LagGrows")
        for _ in range(2):
            _kill(platform, "publisher", prometheus)
        prometheus.raises("ProcessRestarting")
        # The slot keeps what capture has not confirmed, and capture cannot tell anybody.
        with frozen(platform, "capture"):
            for _ in range(40):
                cursor.execute("select pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
            prometheus.raises("CaptureStandsStill", "SlotRetainsWal")
        _slow_answers(platform, prometheus)
        prometheus.raises("CsvFileWaits")
    with frozen(platform, "observer"):
        prometheus.raises("ObserverBlind")


@pytest.mark.timeout(400)
def test_servers_that_are_away_raise_alerts(platform: Platform, prometheus: Prometheus) -> None:
    supervisor = Supervisor(Layout(platform.folder))
    supervisor.stop_process("postgres")
    until(lambda: _asked(platform, prometheus, "ResultsDatabaseDown", "ApiErrors"), 60, "the alerts")
    supervisor.start_process("postgres")
    supervisor.stop_process("kafka")
    prometheus.raises("KafkaDown")
    supervisor.start_process("kafka")
    until(lambda: "KafkaDown" not in prometheus.firing(), 60, "the end of the alert")


def _asked(platform: Platform, prometheus: Prometheus, *names: str) -> bool:
    ask_api(platform)
    return set(names) <= prometheus.firing()


def _kill(platform: Platform, name: str, prometheus: Prometheus) -> None:
    """kill -9; waits until the next one was seen."""
    started = f'process_start_time_seconds{{process="{name}"}}'
    before = prometheus.query(started)[0]["value"][1]
    pid = platform.pid(name)
    assert pid is not None
    psutil.Process(pid).kill()
    until(
        lambda: any(row["value"][1] != before for row in prometheus.query(f"{started} and up == 1")),
        60,
        f"{name} again",
    )


def _slow_answers(platform: Platform, prometheus: Prometheus) -> None:
    """Somebody locks what the API reads."""
    with closing(_results(platform)) as results:
        cursor = results.cursor()
        until_at = time.monotonic() + FIRES_SECONDS
        while "ApiSlow" not in prometheus.firing():
            assert time.monotonic() < until_at, "ApiSlow is not raised"
            cursor.execute("begin; lock table city_totals, generations in access exclusive mode")
            asking = threading.Thread(target=ask_api, args=(platform,))
            asking.start()
            time.sleep(0.7)
            cursor.execute("commit")
            asking.join(30)
            time.sleep(1)
        print("ApiSlow: raised")


def _results(platform: Platform) -> psycopg2.extensions.connection:
    """As its owner: readers may not lock."""
    layout = Layout(platform.folder)
    options = layout.options()
    assert options is not None
    url = Programs(layout, options, StackSettings()).results_url(databases.WRITER)
    connection = psycopg2.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
    )
    connection.autocommit = True
    return connection


def _one(platform: Platform, question: str) -> Sequence[Any]:
    with closing(_results(platform)) as results:
        cursor = results.cursor()
        found: list[Sequence[Any]] = []

        def is_there() -> bool:
            cursor.execute(question)
            found.extend(cursor.fetchall())
            return bool(found)

        until(is_there, 90, question)
        return found[0]
