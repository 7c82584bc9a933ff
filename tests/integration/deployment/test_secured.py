"""docker-compose.yml's services, run as they stand there, over TLS, as users who may do their work and nothing else."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
import trustme
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from contracts.datasets import PIPELINES
from contracts.settings import KafkaSettings
from kafka_client import acls
from observer import probes
from stack import databases
from stack.postgres import connect
from tests.support.compose import Host, ours
from tests.support.marquez import Marquez
from tests.support.secured import ADMIN, REGISTRY_USER, Secured

pytestmark = pytest.mark.soak

ONCE = ("sales-db-init", "results-db-init", "history", "setup", "init", "dagster-migrate")
# In the order of the flow; Dagster last, because no result waits for it.
FLOW = (
    "capture",
    "worker-city",
    "worker-city",
    "worker-salesman",
    "worker-enriched",
    "sink",
    "publisher",
    "api",
    "observer",
)
SOURCES = ("till", "csv-files", "payments")
DAGSTER = ("dagster-code", "dagster-daemon", "dagster-web")
# The names of their jobs in lineage.
JOBS = {
    "capture",
    *(f"{pipeline}.g1" for pipeline in PIPELINES),
    *(f"{pipeline}.g1.sink" for pipeline in PIPELINES),
    *(f"{pipeline}.publisher" for pipeline in PIPELINES),
    "csv-take",
}
LOOKS = {
    "kafka", "ledger", "lineage", "groups", "topics", "results", "totals", "slot", "dagster", "inbox", "disk",
}  # fmt: skip
GROUPED = """
    select country, city, currency, {total} from {table}
    where {when} >= date_trunc('day', now() at time zone 'utc') at time zone 'utc' group by 1, 2, 3
"""


@pytest.fixture(scope="module")
def host(secured: Secured) -> Host:
    """Rights given by the administrator, all else made by services of docker-compose.yml that end."""
    assert acls.create(_admin(secured), acls.principals()) > 0
    made = Host(secured, secured.folder / "host")
    made.once(*ONCE)
    return made


@pytest.fixture(scope="module")
def told(host: Host) -> Iterator[list[dict[str, Any]]]:
    """Marquez's events so far."""
    with Marquez(host.port("marquez", "5000")) as server:
        yield server.taken


def _admin(secured: Secured) -> KafkaSettings:
    return KafkaSettings(
        kafka_bootstrap=secured.kafka.bootstrap,
        schema_registry_url=secured.registry_url,
        schema_registry_username=REGISTRY_USER,
        schema_registry_password=SecretStr(secured.registry_password),
        schema_registry_ca_file=secured.ca,
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username=ADMIN,
        kafka_sasl_password=SecretStr(secured.kafka.users[ADMIN]),
        kafka_ssl_ca_file=secured.ca,
    )


def _totals(rows: list[tuple[Any, ...]]) -> dict[tuple[str, ...], Decimal]:
    return {tuple(map(str, row[:3])): Decimal(row[3]) for row in rows}


def _rows(secured: Secured, database: str, role: str, statement: str) -> list[tuple[Any, ...]]:
    connection = connect(secured.database(database, role))
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall()
    finally:
        connection.close()


def _origins(host: Host) -> set[tuple[str, str]]:
    """The totals' origins by the API, which reads them from the topic."""
    answer = httpx.get(
        f"http://127.0.0.1:{host.port('api', '8082')}/api/v1/lineage?dataset=top_sales_by_city&column=total"
    )
    if answer.status_code == 404:
        # No job emitted it yet.
        return set()
    return set(_ends(answer.raise_for_status().json()["step"]))


def _ends(step: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not step["next"]:
        yield step["name"], step["column"]
    for one in step["next"]:
        yield from _ends(one)


def _answered(host: Host) -> set[str]:
    """The observer's probes that succeeded, of those that it runs."""
    shown = httpx.get(f"http://127.0.0.1:{host.port('observer', '9200')}/metrics").raise_for_status().text
    probes = dict(re.findall(r'^electrored_look_up\{at="(\w+)"\} (\S+)$', shown, re.MULTILINE))
    return {name for name, value in probes.items() if float(value) == 1.0}


def test_every_service_of_ours_is_run_here() -> None:
    assert {*ONCE, *FLOW, *SOURCES, *DAGSTER} == set(ours())


def test_the_services_come_up_healthy_and_what_they_say_is_a_group_by(
    host: Host, told: list[dict[str, Any]]
) -> None:
    """Two workers of one service, too; lineage and probes cover what runs; no process exceeds its rights."""
    secured = host.secured
    with host.up((*FLOW, *SOURCES)) as started:
        # Both workers of worker-city have one port here, so one of them is asked; the slots below show both.
        started.healthy(*dict.fromkeys(FLOW), "payments")
        sold = "select count(*) from sales"
        first = _rows(secured, secured.sales, databases.SHOP, sold)
        started.until(lambda: _rows(secured, secured.sales, databases.SHOP, sold) > first, "the till sells")
        inbox = host.folder / "inbox"
        started.until(lambda: list(inbox.glob("sales_*.csv")), "a file is dropped")
        started.healthy("till", "csv-files")
        started.end("till")
        question = GROUPED.format(total="sum(amount)", table="sales", when="sold_at")
        expected = _totals(_rows(secured, secured.sales, databases.SHOP, question))

        def is_equal() -> bool:
            answer = httpx.get(
                f"http://127.0.0.1:{host.port('api', '8082')}/api/v1/top-sales/by-city?limit=1000"
            ).raise_for_status()
            keys = ("country", "city", "currency", "total")
            found = _totals([tuple(row[key] for key in keys) for row in answer.json()["data"]])
            return found == expected

        started.until(is_equal, "the answer is the GROUP BY")
        everything = "select sum(amount), count(*) from sales"
        counted = "select sum(total), sum(sales_count) from top_sales_by_city"
        started.until(
            lambda: (
                _rows(secured, secured.results, databases.READER, counted)
                == _rows(secured, secured.sales, databases.SHOP, everything)
            ),
            "all days are counted",
        )
        names = {path.name.split(".slot")[1] for path in (host.folder / "state").glob("*.slot*")}
        assert {name.partition("-")[2] for name in names} == {"0", "1"}
        # As the conductor's runs do it; a dropped file is whole, because it was renamed.
        done = host.run("dagster-code", "python", "-m", "sources", "csv", "take")
        assert " accepted" in done.stdout, done.stderr
        started.until(lambda: {event["job"]["name"] for event in told} >= JOBS, "everybody tells Marquez")
        sold_for = (f"{secured.sales}.public.sales", "amount")
        started.until(lambda: sold_for in _origins(host), "the API says where the total comes from")
        started.until(lambda: _answered(host) == LOOKS, "the observer gets an answer to all that it asks")
        started.end("csv-files")
        for service in DAGSTER:
            started.start(service)
        started.healthy(*DAGSTER)
    assert not secured.refusals()


@pytest.mark.usefixtures("told")
def test_what_is_conducted_needs_no_right_that_the_conductor_lacks(host: Host) -> None:
    """As docs/operations.md has it for containers: payments, a file taken back, a replay and all that comes of it."""
    secured, before = host.secured, len(host.secured.refusals())
    inbox = host.folder / "inbox"
    (inbox / ".mine").write_text(
        "sale_id,sold_at,city,country,salesman_id,salesman_name,product,quantity,amount,currency\n"
        "mine-1,2026-01-02T10:00:00Z,Lyon,FR,S1,Ada,Lamp,1,10.00,EUR\n"
        "mine-2,no time,Lyon,FR,S1,Ada,Lamp,1,10.00,EUR\n"
    )
    (inbox / ".mine").rename(inbox / "sales_mine.csv")

    def conducted(*arguments: str) -> str:
        done = host.run("dagster-code", "python", "-m", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    pipeline = "top-sales-by-city"
    with host.up((*dict.fromkeys(FLOW), "payments")) as started:
        started.healthy(*dict.fromkeys(FLOW), "payments")
        conducted("sources", "soap", "poll")
        assert "sales_mine.csv: " in conducted("sources", "csv", "take")
        assert "1 sales taken back" in conducted("sources", "csv", "retract", "sales_mine.csv")
        assert "sales_mine.csv" in conducted("observability.letters", "-n", "5")
        assert "is a candidate" in conducted("streaming", "replay", pipeline, "--reason", "a test")
        conducted("streaming", "diff", pipeline, "2")
        by = ("--approved-by", "Ada", "--yes")
        assert "g2 is active" in conducted("streaming", "promote", pipeline, "2", *by)
        undone = ("--reason", "a test", *by)
        assert "g1 is active" in conducted("streaming", "rollback", pipeline, *undone)
        assert "is retired" in conducted("streaming", "retire", pipeline, "2", "--yes")
        assert "retired" in conducted("streaming", "generations", pipeline)
    assert not secured.refusals()[before:]


def test_the_observer_reads_dagsters_database_and_cannot_write_it(host: Host) -> None:
    folder = Path(host.environment("observer")["ELECTRORED_SECRETS_DIR"])
    url = make_url((folder / "electrored_dagster_db_url").read_text().strip())
    dagster = create_engine(url, poolclass=NullPool)
    list(probes.probe_dagster(dagster))
    for change in (
        "insert into kvs (key, value) values ('a', 'b')",
        "update runs set status = 'FAILURE'",
        "delete from event_logs",
        "create table mine (n integer)",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"), dagster.begin() as connection:
            connection.execute(text(change))


@pytest.mark.usefixtures("told")
def test_who_may_not_is_refused_with_one_line_that_says_what_to_do(host: Host) -> None:
    """Change capture as the sink's user."""
    before = len(host.secured.refusals())
    environment = host.environment("capture") | host.secured.settings(f"{acls.USER_PREFIX}sink")
    password = host.secured.secrets(f"{acls.USER_PREFIX}sink")["electrored_kafka_sasl_password"]
    environment["ELECTRORED_KAFKA_SASL_PASSWORD"] = password
    done = subprocess.run(
        host.command("capture"), env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    # librdkafka's own lines begin with %.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("%")]
    assert len(lines) == 1, "\n".join(lines)
    (line,) = lines
    assert "Kafka refuses" in line
    assert "python -m contracts acls" in line
    assert "User:electrored-sink" in "".join(host.secured.refusals()[before:])


def test_dead_letters_say_which_right_is_missing(host: Host) -> None:
    environment = host.environment("dagster-code") | host.secured.settings(f"{acls.USER_PREFIX}worker")
    password = host.secured.secrets(f"{acls.USER_PREFIX}worker")["electrored_kafka_sasl_password"]
    environment["ELECTRORED_KAFKA_SASL_PASSWORD"] = password
    done = subprocess.run(
        ["python", "-m", "observability.letters"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "the right to Describe the group electrored.letters is missing" in done.stderr, done.stderr


def test_a_database_that_cannot_prove_who_it_is_gets_no_password(secured: Secured, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "another.pem")
    url = secured.database(secured.results, databases.READER)
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        connect(url.update_query_dict({"sslrootcert": str(tmp_path / "another.pem")}))
    with pytest.raises(psycopg2.OperationalError, match="closed the connection"):
        connect(url.update_query_dict({"sslmode": "disable"}))
