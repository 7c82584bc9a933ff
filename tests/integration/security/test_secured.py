"""Every process over TLS as a user of its own, who may do its work and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
import trustme
from confluent_kafka.schema_registry.error import SchemaRegistryError
from pydantic import SecretStr

from contracts.registry import Registry
from contracts.settings import KafkaSettings
from stack import databases, ports
from stack.postgres import connect
from tests.integration.security.conftest import ADMIN, REGISTRY_USER, Secured

ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 90.0
FILE = f"""sale_id,sold_at,city,country,salesman_id,salesman_name,product,quantity,amount,currency
f1,{datetime.now(UTC).isoformat()},city0,DE,m0,Ada,tv,1,1000,EUR
"""


@contextmanager
def _running(
    secured: Secured, processes: dict[str, tuple[Sequence[str], dict[str, str]]]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, (arguments, environment) in processes.items():
            with (secured.folder / f"{name}.log").open("wb") as log:
                started[name] = subprocess.Popen(
                    [sys.executable, "-m", *arguments],
                    cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                )  # fmt: skip
        yield started
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.wait(30)


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )


def _done(environment: dict[str, str], *arguments: str) -> str:
    done = _run(environment, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prepared(secured: Secured) -> Secured:
    """Rights given by the administrator, all else made by the user who may make it."""
    assert "rights are given" in _done(secured.environment(ADMIN), "contracts", "acls", "--create")
    setup = secured.environment("setup", results=databases.WRITER)
    _done(setup, "contracts", "setup")
    _done(setup, "streaming", "init")
    return secured


def _rows(secured: Secured, database: str, role: str, statement: str) -> list[tuple[Any, ...]]:
    connection = connect(secured.database(database, role))
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _until(
    condition: Callable[[], bool], processes: dict[str, subprocess.Popen[bytes]], folder: Path
) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        for name, process in processes.items():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"{name} ({process.poll()}): {(folder / f'{name}.log').read_text()[-3000:]}"
                )
        time.sleep(0.1)


def test_the_whole_way_over_tls_each_process_as_its_own_user(prepared: Secured) -> None:
    secured = prepared
    _rows(
        secured, secured.sales, databases.SHOP,
        "insert into sales select 's' || n, now(), 'city' || n % 7, 'DE', 'm' || n % 3, 'Ada', 'tv', 1, n, 'EUR' "
        "from generate_series(1, 200) n",
    )  # fmt: skip
    (port,) = ports.free(1)
    processes: dict[str, tuple[Sequence[str], dict[str, str]]] = {
        "capture": (["sources", "postgres"], secured.environment("capture", sales=databases.CAPTURE)),
        "worker": (
            ["streaming", "work", "top-sales-by-city", "--slot", "0"],
            secured.environment("worker", results=databases.WRITER),
        ),
        "sink": (["streaming", "sink"], secured.environment("sink", results=databases.WRITER)),
        "publisher": (["streaming", "publish"], secured.environment("publisher", results=databases.READER)),
        "api": (
            ["api"],
            secured.environment("sink", results=databases.READER) | {"ELECTRORED_API_PORT": str(port)},
        ),
    }
    with _running(secured, processes) as started:
        expected = {
            city: Decimal(total)
            for city, total in _rows(
                secured, secured.sales, databases.SHOP,
                "select city, sum(amount) from sales group by city",
            )
        }  # fmt: skip

        def is_equal() -> bool:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/top-sales/by-city?limit=100")
            except httpx.TransportError:
                return False
            if answer.status_code != 200:
                return False
            found = {row["city"]: Decimal(row["total"]) for row in answer.json()["data"]}
            return found == expected

        _until(is_equal, started, secured.folder)
        # Whoever conducts: a file, a replay of everything, and its end.
        conductor = secured.environment("conductor", results=databases.WRITER)
        conductor["ELECTRORED_CSV_SETTLE_SECONDS"] = "0"
        inbox = secured.folder / "inbox"
        inbox.mkdir()
        (inbox / "sales_1.csv").write_text(FILE)
        assert "1 accepted" in _done(conductor, "sources", "csv", "take")
        expected["city0"] += 1000
        _until(is_equal, started, secured.folder)
        reason = "is a replay allowed?"
        said = _done(conductor, "streaming", "replay", "top-sales-by-city", "--reason", reason)
        assert "top-sales-by-city.g2 is a candidate: 201 events" in said
        _done(conductor, "streaming", "retire", "top-sales-by-city", "2", "--yes")
    assert not secured.refusals()


def test_who_may_not_is_refused_with_one_line_that_says_what_to_do(prepared: Secured) -> None:
    """The sink's user would write events; the reader would connect without TLS, or to another server than it meant."""
    before = len(prepared.refusals())
    sink = prepared.environment("sink", sales=databases.CAPTURE)
    done = _run(sink, "sources", "postgres")
    assert done.returncode == 1
    # librdkafka's own lines begin with %.
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("%")]
    assert "Kafka refuses" in line
    assert "python -m contracts acls" in line
    assert "User:electrored-sink" in "".join(prepared.refusals()[before:])


def test_the_registry_wants_a_password(prepared: Secured) -> None:
    settings = KafkaSettings(
        kafka_bootstrap=prepared.kafka.bootstrap,
        schema_registry_url=prepared.registry_url,
        schema_registry_username=REGISTRY_USER,
        schema_registry_password=SecretStr("wrong"),
        schema_registry_ca_file=prepared.ca,
    )
    with pytest.raises(SchemaRegistryError, match="who are you"):
        Registry(settings).register_public()


def test_a_database_that_cannot_prove_who_it_is_gets_no_password(prepared: Secured, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "another.pem")
    url = prepared.database(prepared.results, databases.READER)
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        connect(url.update_query_dict({"sslrootcert": str(tmp_path / "another.pem")}))
    with pytest.raises(psycopg2.OperationalError, match="closed the connection"):
        connect(url.update_query_dict({"sslmode": "disable"}))
