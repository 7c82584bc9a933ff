"""Services of docker-compose.yml as processes of this machine: their own command line, environment and health check.

What differs: addresses, folders, and the contents of secrets; each service is a user of its own in Kafka.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kafka_client.acls import USER_PREFIX
from stack import databases, ports
from stack.postgres import SUPERUSER
from tests.support.secured import Secured

ROOT = Path(__file__).parents[2]
IMAGE = "electrored:"
DEADLINE_SECONDS = 120.0
# Enough for an order; what it does not obey is killed, as Docker does.
STOP_SECONDS = 15.0
# A service that never comes up shall not be tried for ever.
MOST_RESTARTS = 2
# A service's kind of process, where its name does not show it.
KINDS = {
    "init": "setup",
    "dagster-code": "conductor",
    "dagster-daemon": "conductor",
    "dagster-web": "conductor",
}
# Numbers that stand alone in a command line or a variable and are ports.
PORTS = frozenset({"9200", "8082", "8080", "3001", "4266"})


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def ours() -> dict[str, Any]:
    """The services that run our image."""
    return {name: found for name, found in compose()["services"].items() if found["image"].startswith(IMAGE)}


def image() -> tuple[dict[str, str], list[str]]:
    """The environment and the health check that the Dockerfile gives to every container."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in line.split()), json.loads(check)


@dataclass
class Host:
    """This machine in place of the containers' network and volumes."""

    secured: Secured
    folder: Path
    _ports: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.made = self.folder / "secrets"
        self.made.mkdir(parents=True)
        # The shared server has its passwords already.
        passwords = self.secured.stack.passwords
        for role in databases.ROLES:
            (self.made / f"{role.removeprefix('electrored_')}_password").write_text(passwords[role])
        for server in ("sales", "results"):
            (self.made / f"{server}_superuser_password").write_text(passwords[SUPERUSER])
        subprocess.run(["sh", str(ROOT / "deploy" / "secrets.sh"), str(self.made)], check=True)
        for volume in ("state", "inbox", "payments", "lineage", "dagster/storage"):
            (self.folder / volume).mkdir(parents=True)
        (self.folder / "dagster" / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")

    def port(self, service: str, inside: str) -> int:
        """Where the service listens here instead."""
        if (service, inside) not in self._ports:
            (self._ports[service, inside],) = ports.free(1)
        return self._ports[service, inside]

    def here(self, service: str, text: str) -> str:
        """A word of a command line, or a value of the environment."""
        if text in PORTS:
            return str(self.port(service, text))
        if text == "0.0.0.0":
            return "127.0.0.1"
        if text == "connected:5432":
            return f"connected:{self.secured.postgres_port}"
        names = "|".join(compose()["services"])
        text = re.sub(
            rf"(?<=//)({names}):(\d+)|^(127\.0\.0\.1):(\d+)|(?<=//)(127\.0\.0\.1):(\d+)",
            lambda at: self._address(service, at),
            text,
        )
        return text.replace("/opt/electrored", str(ROOT)).replace("/var/lib/electrored", str(self.folder))

    def _address(self, service: str, at: re.Match[str]) -> str:
        host, port = (part for part in at.groups() if part is not None)
        return f"127.0.0.1:{self.port(service if host == '127.0.0.1' else host, port)}"

    def environment(self, service: str) -> dict[str, str]:
        """The process's whole environment; of this one's only PATH."""
        found = ours()[service]
        told = image()[0] | {name: str(value) for name, value in found.get("environment", {}).items()}
        environment = {name: self.here(service, value) for name, value in told.items() if name != "PATH"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        # Its default is the port of the seed.
        environment["ELECTRORED_API_PORT"] = str(self.port("api", "8082"))
        if "ELECTRORED_DAGSTER_CODE_HOST" in environment:
            environment["ELECTRORED_DAGSTER_CODE_HOST"] = "127.0.0.1"
            environment["ELECTRORED_DAGSTER_CODE_PORT"] = str(self.port("dagster-code", "4266"))
        if "ELECTRORED_SOAP_HOSTS" in environment:
            environment["ELECTRORED_SOAP_HOSTS"] = "127.0.0.1"
        secrets = {}
        for secret in found.get("secrets", []):
            secrets[secret["target"]] = self._secret((self.made / secret["source"]).read_text())
        if "ELECTRORED_KAFKA_BOOTSTRAP" in environment:
            user = USER_PREFIX + KINDS.get(service, service.split("-")[0])
            if user.removeprefix(USER_PREFIX) != "dagster":
                environment |= self.secured.settings(user)
                secrets |= self.secured.secrets(user)
        folder = self.folder / "run" / service
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in secrets.items():
            (folder / name).write_text(content)
        if "ELECTRORED_SECRETS_DIR" in environment:
            environment["ELECTRORED_SECRETS_DIR"] = str(folder)
        return environment

    def _secret(self, text: str) -> str:
        """A database's address becomes that of the shared server, over TLS, and of the test's own database."""
        if not text.startswith("postgresql"):
            return text
        account, place = text.strip().rsplit("@", 1)
        name = place.rpartition("/")[2]
        name = {
            "sales": self.secured.sales,
            "results": self.secured.results,
            "dagster": self.secured.dagster,
        }.get(name, name)
        parameters = f"sslmode=verify-full&sslrootcert={self.secured.ca}"
        return f"{account}@127.0.0.1:{self.secured.postgres_port}/{name}?{parameters}\n"

    def command(self, service: str) -> list[str]:
        found = ours()[service]
        words = [*found.get("entrypoint", []), *found["command"]]
        return [self.here(service, word) for word in words]

    def health(self, service: str) -> list[str] | None:
        """The check of its own or the image's; None where it is switched off."""
        check = ours()[service].get("healthcheck", {"test": ["CMD", *image()[1]]})
        return None if check.get("disable") else [self.here(service, word) for word in check["test"][1:]]

    def once(self, *services: str) -> None:
        """Run services that end, one after the other."""
        for service in services:
            done = subprocess.run(
                self.command(service), env=self.environment(service), cwd=self.folder,
                capture_output=True, text=True, timeout=DEADLINE_SECONDS,
            )  # fmt: skip
            assert done.returncode == 0, f"{service}: {done.stdout}{done.stderr}"

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Another command in the container of a service."""
        return subprocess.run(
            command, env=self.environment(service), cwd=self.folder, capture_output=True, text=True,
            timeout=DEADLINE_SECONDS,
        )  # fmt: skip

    @contextmanager
    def up(self, services: Sequence[str]) -> Iterator[Started]:
        started = Started(self)
        try:
            for service in services:
                started.start(service)
            yield started
        finally:
            started.stop()


class Started:
    """Services that run, each in a group of its own: what it has started goes with it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._ended: Counter[str] = Counter()

    def start(self, service: str) -> None:
        with self._log(service).open("ab") as log:
            process = subprocess.Popen(
                self._host.command(service), env=self._host.environment(service), cwd=self._host.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._processes.append((service, process))

    def _log(self, service: str) -> Path:
        return self._host.folder / f"{service}.log"

    def until(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            for service, process in list(self._processes):
                if process.poll() is not None:
                    self._again(service, process)
            assert time.monotonic() < deadline, f"{what} did not come true"
            # Some conditions take a process to ask: pauses leave the machine to those that start.
            time.sleep(0.5)

    def _again(self, service: str, process: subprocess.Popen[bytes]) -> None:
        """As `restart: unless-stopped` does: a process fenced on a slow machine ends by itself."""
        self._ended[service] += 1
        said = self._log(service).read_text()[-3000:]
        assert self._ended[service] <= MOST_RESTARTS, f"{service} keeps ending: {said}"
        self._processes.remove((service, process))
        self.start(service)

    def healthy(self, *services: str) -> None:
        for service in services:
            check = self._host.health(service)
            assert check is not None
            environment = self._host.environment(service)

            def answers(check: list[str] = check, environment: dict[str, str] = environment) -> bool:
                return subprocess.run(check, env=environment, capture_output=True, timeout=60).returncode == 0

            self.until(answers, f"{service} is healthy")

    def end(self, service: str) -> None:
        """Ask it to stop, as `docker compose stop` does."""
        for name, process in self._processes:
            if name == service:
                process.terminate()
                assert process.wait(30) in (0, -signal.SIGTERM, 143), self._log(service).read_text()[-2000:]
        self._processes = [(name, process) for name, process in self._processes if name != service]

    def stop(self) -> None:
        for _, process in self._processes:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for _, process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for _, process in self._processes:
            # Runs of Dagster are children of its code server.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
