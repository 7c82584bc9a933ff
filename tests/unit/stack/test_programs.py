"""What is started, with which role, and what is not when an address was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from contracts.settings import StackSettings
from stack import databases
from stack.layout import Layout, Options
from stack.postgres import SUPERUSER
from stack.programs import Platform


def _platform(folder: Path, options: Options | None = None, **settings: str) -> Platform:
    return Platform(Layout(folder), options or Options(), StackSettings.model_validate(settings))


def _environments(platform: Platform) -> dict[str, Mapping[str, str]]:
    return {program.name: program.environment for program in platform.all()}


@pytest.mark.parametrize(
    ("program", "variable", "role"),
    [
        ("capture", "ELECTRORED_SALES_DB_URL", databases.CAPTURE),
        ("simulator", "ELECTRORED_SALES_DB_URL", databases.SHOP),
        ("payments", "ELECTRORED_SALES_DB_URL", databases.SHOP),
        ("sink", "ELECTRORED_RESULTS_DB_URL", databases.WRITER),
        ("api", "ELECTRORED_RESULTS_DB_URL", databases.READER),
        ("publisher", "ELECTRORED_RESULTS_DB_URL", databases.READER),
        ("worker-city", "ELECTRORED_RESULTS_DB_URL", databases.WRITER),
        ("worker-salesman", "ELECTRORED_RESULTS_DB_URL", databases.WRITER),
        ("dagster-code", "ELECTRORED_RESULTS_DB_URL", databases.WRITER),
        ("dagster-web", "ELECTRORED_RESULTS_DB_URL", databases.READER),
        ("dagster-daemon", "ELECTRORED_DAGSTER_DB_URL", databases.DAGSTER_ROLE),
        ("observer", "ELECTRORED_DAGSTER_DB_URL", databases.READER),
        ("observer", "ELECTRORED_RESULTS_DB_URL", databases.READER),
        ("observer", "ELECTRORED_SALES_DB_URL", databases.WATCHER),
    ],
)
def test_every_process_has_the_role_that_its_work_needs(
    tmp_path: Path, program: str, variable: str, role: str
) -> None:
    url = _environments(_platform(tmp_path))[program][variable]
    assert url.split("//", 1)[1].split(":", 1)[0] == role


def test_no_process_of_ours_has_the_superusers_password(tmp_path: Path) -> None:
    platform = _platform(tmp_path)
    known = [value for environment in _environments(platform).values() for value in environment.values()]
    assert not any(platform.passwords[SUPERUSER] in value for value in known)


def test_what_env_prints_lets_one_sell_and_read_and_nothing_more(tmp_path: Path) -> None:
    platform = _platform(tmp_path)
    printed = platform.connection_environment
    assert f"//{databases.SHOP}:" in printed["ELECTRORED_SALES_DB_URL"]
    assert f"//{databases.READER}:" in printed["ELECTRORED_RESULTS_DB_URL"]
    for role in (SUPERUSER, databases.WRITER, databases.CAPTURE, databases.REGISTRY_ROLE):
        assert not any(platform.passwords[role] in value for value in printed.values())


def test_two_stacks_with_different_offsets_share_no_port(tmp_path: Path) -> None:
    def ports(offset: int) -> set[int]:
        platform = _platform(tmp_path, Options(port_offset=offset))
        return {port for program in platform.all() for port in program.listens.values()}

    assert ports(0).isdisjoint(ports(100))


def test_what_is_given_is_used_and_not_started(tmp_path: Path) -> None:
    kafka, registry = "kafka.example:9092", "http://r.example"
    platform = _platform(tmp_path, kafka_bootstrap=kafka, schema_registry_url=registry)
    assert [program.name for program in platform.servers()] == ["postgres"]
    for program in platform.workers():
        assert program.environment.get("ELECTRORED_KAFKA_BOOTSTRAP", kafka) == kafka
    assert platform.connection_environment["ELECTRORED_SCHEMA_REGISTRY_URL"] == "http://r.example"


def test_a_sales_database_of_ones_own_is_never_sold_into(tmp_path: Path) -> None:
    url = "postgresql+psycopg2://me:mine@db.example/shop"
    platform = _platform(tmp_path, sales_db_url=url)
    environments = _environments(platform)
    assert {"simulator", "simulator-csv", "payments"}.isdisjoint(environments)
    assert "ELECTRORED_SOAP_WSDL" not in platform.connection_environment
    assert "postgres" in environments
    assert environments["capture"]["ELECTRORED_SALES_DB_URL"] == url


def test_postgresql_stays_off_when_every_database_is_given(tmp_path: Path) -> None:
    url = "postgresql+psycopg2://me:mine@db.example/x"
    given: Any = {f"{name}_db_url": url for name in ("sales", "results", "dagster")}
    platform = _platform(tmp_path, schema_registry_url="http://r.example", **given)
    assert [program.name for program in platform.servers()] == ["kafka"]


def test_without_simulation_nothing_sells(tmp_path: Path) -> None:
    platform = _platform(tmp_path, Options(simulate=False))
    assert {"simulator", "simulator-csv", "payments"}.isdisjoint(_environments(platform))


def test_the_poll_and_the_service_have_the_same_address_and_password(tmp_path: Path) -> None:
    platform = _platform(tmp_path, Options(port_offset=100))
    printed = platform.connection_environment
    assert printed["ELECTRORED_SOAP_WSDL"] == "http://127.0.0.1:8180/payments?wsdl"
    environments = _environments(platform)
    for name in ("payments", "dagster-code"):
        for variable in ("ELECTRORED_SOAP_USERNAME", "ELECTRORED_SOAP_PASSWORD"):
            assert environments[name][variable] == printed[variable]


def test_files_are_dropped_where_they_are_looked_for(tmp_path: Path) -> None:
    environments = _environments(_platform(tmp_path))
    inbox = environments["dagster-code"]["ELECTRORED_CSV_INBOX"]
    assert inbox == environments["simulator-csv"]["ELECTRORED_CSV_INBOX"]
    assert inbox == str(Layout(tmp_path).csv_inbox)


def test_into_an_inbox_of_ones_own_no_file_is_dropped(tmp_path: Path) -> None:
    environments = _environments(_platform(tmp_path, csv_inbox="/srv/sales"))
    assert environments["dagster-code"]["ELECTRORED_CSV_INBOX"] == "/srv/sales"
    assert "simulator-csv" not in environments
    assert "simulator" in environments


@pytest.mark.parametrize(("log_format", "more"), [("console", []), ("json", ["--log-format", "json"])])
def test_dagster_logs_as_the_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str, more: list[str]
) -> None:
    monkeypatch.setenv("ELECTRORED_LOG_FORMAT", log_format)
    for program in _platform(tmp_path).dagster():
        flag = program.command.index("--log-format") if "--log-format" in program.command else None
        assert (program.command[flag:] if flag else []) == more, program.name
