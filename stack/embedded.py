"""Kafka, registry and PostgreSQL as children of this process: for tests and benchmarks, gone when it ends."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from contracts.settings import KafkaSettings
from stack import databases, java
from stack.errors import StackError
from stack.kafka import Kafka
from stack.ports import Ports
from stack.postgres import SUPERUSER, Postgres, identity, system_user
from stack.registry import Registry
from stack.secrets import passwords

# Cold and on a busy machine; a start takes about ten seconds.
START_TIMEOUT_SECONDS = 90.0
STOP_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Embedded:
    """The addresses of a running stack. `processes` are for tests that kill them."""

    folder: Path
    bootstrap: str
    registry_url: str
    server: Postgres
    passwords: Mapping[str, str]
    processes: Mapping[str, subprocess.Popen[bytes]]

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(kafka_bootstrap=self.bootstrap, schema_registry_url=self.registry_url)

    def postgres(self, database: str = "postgres", role: str = SUPERUSER) -> URL:
        """A SQLAlchemy URL, the superuser's by default."""
        return self.server.url(database, role, self.passwords[role])


@contextmanager
def running(folder: Path, postgres: Mapping[str, str] | None = None) -> Iterator[Embedded]:
    """Start the three servers on free ports, with their data in `folder`; stop them whatever happens.

    `postgres`: settings of PostgreSQL beside those that the platform has.
    """
    ports = Ports.free()
    for program in ("kafka", "registry"):
        java.fetch(program)
    secrets = passwords(folder / "secrets.json", (SUPERUSER, *databases.ROLES))
    kafka = Kafka(folder / "kafka", ports.kafka, ports.kafka_controller)
    server = Postgres(folder / "postgres", ports.postgres, secrets[SUPERUSER], postgres or {})
    store = server.url(databases.REGISTRY, databases.REGISTRY_ROLE, secrets[databases.REGISTRY_ROLE])
    registry = Registry(folder / "registry", ports.registry, ports.registry_management, store)

    with ExitStack() as cleanup:
        processes: dict[str, subprocess.Popen[bytes]] = {}

        def start(
            name: str,
            command: Sequence[str],
            environment: Mapping[str, str],
            stop: signal.Signals,
            user: str | None,
        ) -> None:
            processes[name] = cleanup.enter_context(
                child(command, environment, folder / f"{name}.log", stop=stop, user=user)
            )

        # The slowest begins first; everything is started from this thread (see `_die_with_parent`).
        formatting = kafka.prepare()
        server.prepare()
        start("postgres", server.command, server.environment, signal.SIGINT, system_user())
        kafka.finish(formatting)
        start("kafka", kafka.command, kafka.environment, signal.SIGTERM, None)
        until_ready("postgres", server.is_ready, processes["postgres"], folder)
        databases.provision(server.url("postgres"), secrets)
        start("registry", registry.command, registry.environment, signal.SIGTERM, None)
        until_ready("kafka", kafka.is_ready, processes["kafka"], folder)
        until_ready("registry", registry.is_ready, processes["registry"], folder)
        yield Embedded(folder, kafka.bootstrap, registry.url, server, secrets, processes)


@contextmanager
def child(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    stop: signal.Signals,
    user: str | None,
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **identity(user),
            # Ctrl-C must not reach the servers: they are stopped below, in order.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    """Have the kernel end the child with the thread that started it, so that a killed test leaves no process."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGINT)


def until_ready(
    name: str, is_ready: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            log = folder / f"{name}.log"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise StackError(f"{name} did not start (exit code {process.poll()}):\n{last}", f"read {log}")
        time.sleep(0.05)
