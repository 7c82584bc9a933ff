"""deploy/compose.managed.yml beside docker-compose.yml, as docker-compose merges them: a Kafka of others."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kafka_client import acls
from tests.support.compose import KINDS

ROOT = Path(__file__).parents[3]
MANAGED = ("-f", "docker-compose.yml", "-f", "deploy/compose.managed.yml")
ADDRESSES = {
    "ELECTRORED_KAFKA_BOOTSTRAP": "broker.example.com:9092",
    "ELECTRORED_SCHEMA_REGISTRY_URL": "https://registry.example.com",
}


def _config(*files: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker-compose", *files, "config"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"], **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def merged() -> dict[str, Any]:
    done = _config(*MANAGED, **ADDRESSES)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


@pytest.fixture(scope="module")
def services(merged: dict[str, Any]) -> dict[str, Any]:
    """Those that are started: of no profile."""
    return {name: found for name, found in merged["services"].items() if "profiles" not in found}


def test_neither_kafka_nor_registry_is_started_and_nothing_waits_for_them(
    merged: dict[str, Any], services: dict[str, Any]
) -> None:
    assert set(merged["services"]) - set(services) == {"kafka", "registry"}
    for name, service in services.items():
        assert not {"kafka", "registry"} & set(service.get("depends_on", ())), name
        assert "kafka:19092" not in str(service), name


def test_every_process_that_asks_kafka_asks_the_managed_one_with_a_key_of_its_own(
    merged: dict[str, Any], services: dict[str, Any]
) -> None:
    asking = {
        name: service
        for name, service in services.items()
        if "ELECTRORED_KAFKA_BOOTSTRAP" in service.get("environment", {})
    }
    kinds = set()
    for name, service in asking.items():
        environment = service["environment"]
        assert ADDRESSES.items() <= environment.items(), name
        expected = {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "PLAIN", "REPLICATION_FACTOR": "3"}
        assert {each: environment[f"ELECTRORED_KAFKA_{each}"] for each in expected} == expected, name
        if name == "dagster-migrate":
            # It asks a database alone.
            continue
        kind = KINDS.get(name, name.split("-")[0])
        kinds.add(kind)
        given = {secret["target"]: secret["source"] for secret in service["secrets"]}
        assert {
            "electrored_kafka_sasl_username": f"kafka_{kind}_username",
            "electrored_kafka_sasl_password": f"kafka_{kind}_password",
            "electrored_schema_registry_username": "schema_registry_username",
            "electrored_schema_registry_password": "schema_registry_password",
        }.items() <= given.items(), name
        assert set(given.values()) <= set(merged["secrets"]), name
    assert kinds == set(acls.GRANTS)


def test_no_alert_misses_a_container_of_kafka(services: dict[str, Any]) -> None:
    mounted = dict(str(volume).split(":")[:2] for volume in services["prometheus"]["volumes"])
    assert mounted["/dev/null"] == "/etc/prometheus/compose.kafka.rules.yml"
    assert sum("kafka" in inside for inside in mounted.values()) == 1


@pytest.mark.parametrize("left_out", ADDRESSES)
def test_an_address_that_is_left_out_is_asked_for(left_out: str) -> None:
    done = _config(*MANAGED, **{name: value for name, value in ADDRESSES.items() if name != left_out})
    assert done.returncode != 0
    assert re.search(r"host:port of the service|https address of the registry", done.stderr)


def test_without_it_what_prepares_waits_for_our_own() -> None:
    """docker-compose.override.yml is read when no file is named."""
    done = _config()
    assert done.returncode == 0, done.stderr
    waits = yaml.safe_load(done.stdout)["services"]["setup"]["depends_on"]
    assert {name: how["condition"] for name, how in waits.items()} == {
        "kafka": "service_healthy",
        "registry": "service_healthy",
        "results-db-init": "service_completed_successfully",
    }
