"""Kafka's and PostgreSQL's configuration, and what a killed PostgreSQL leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from stack.kafka import Kafka
from stack.postgres import Postgres
from stack.registry import Registry


def test_kafka_listens_on_the_loopback_only(tmp_path: Path) -> None:
    listeners = Kafka(tmp_path, 1, 2).properties()["listeners"].split(",")
    assert listeners == ["PLAINTEXT://127.0.0.1:1", "CONTROLLER://127.0.0.1:2"]


def test_kafka_finds_a_killed_worker_within_seconds(tmp_path: Path) -> None:
    properties = Kafka(tmp_path, 1, 2).properties()
    assert properties["group.consumer.session.timeout.ms"] == "5000"
    assert properties["group.consumer.min.session.timeout.ms"] == "5000"
    assert properties["transaction.abort.timed.out.transaction.cleanup.interval.ms"] == "1000"


def test_postgresql_listens_on_the_loopback_only_and_can_be_captured(tmp_path: Path) -> None:
    command = Postgres(tmp_path, 5, "secret").command
    assert {"listen_addresses=127.0.0.1", "unix_socket_directories=", "wal_level=logical"} <= set(command)
    assert "secret" not in " ".join(command)


def test_the_registry_shows_no_password_among_its_arguments(tmp_path: Path) -> None:
    database = make_url("postgresql+psycopg2://me:secret@127.0.0.1:5/registry")
    registry = Registry(tmp_path, 3, 4, database)
    assert registry.environment["APICURIO_DATASOURCE_PASSWORD"] == "secret"
    assert registry.environment["APICURIO_DATASOURCE_URL"] == "jdbc:postgresql://127.0.0.1:5/registry"


@pytest.mark.parametrize(
    "is_reused", [False, True], ids=["of a dead server", "another program has the pid now"]
)
def test_a_stale_pid_file_is_removed(tmp_path: Path, is_reused: bool) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = tmp_path / "data" / "postmaster.pid"
    file.parent.mkdir()
    file.write_text(f"{os.getpid() if is_reused else ended.pid}\n{tmp_path}\n")
    Postgres(tmp_path, 5, "secret").drop_stale_lock()
    assert not file.exists()
