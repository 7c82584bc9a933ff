"""Every process of the platform: its command, environment, readiness check and ports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts.settings import LogSettings, StackSettings
from stack import databases, probes
from stack.endpoints import Addresses
from stack.layout import Layout, Options
from stack.ports import LOOPBACK, answers
from stack.postgres import system_user

PROJECT = Path(__file__).resolve().parent.parent
# A worker commits or aborts before it ends; PostgreSQL and Kafka write what they hold.
STOP_SECONDS = 20
# One worker for each pipeline; more are started by hand or by a cluster.
PIPELINES = {
    "top-sales-by-city": "worker-city",
    "top-salesman-by-country": "worker-salesman",
    "enriched-sales": "worker-enriched",
}


@dataclass(frozen=True)
class Program:
    """One supervised process. `listens` are ports that must be free, `address` is for the user."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    is_ready: Callable[[], bool]
    stop_signal: str = "TERM"
    user: str | None = None
    metrics_port: int | None = None
    # The port that Prometheus scrapes.
    scraped_at: int | None = None
    listens: Mapping[str, int] = field(default_factory=dict)
    address: str = ""


class Platform(Addresses):
    """The processes of one stack, in the order in which they start; nothing is started here."""

    def __init__(self, layout: Layout, options: Options, settings: StackSettings) -> None:
        super().__init__(layout, options, settings)
        self._next_metrics_port = self.ports.metrics

    def servers(self) -> list[Program]:
        """The servers that are not given; PostgreSQL first."""
        programs = []
        if self.needs_postgres:
            programs.append(
                Program(
                    "postgres",
                    self.postgres.command,
                    self.postgres.environment,
                    self.postgres.is_ready,
                    stop_signal="INT",
                    user=system_user(),
                    listens={"PostgreSQL": self.ports.postgres},
                    address=f"{LOOPBACK}:{self.ports.postgres}",
                )
            )
        if "kafka" not in self.given:
            listens = {
                "Kafka": self.ports.kafka,
                "Kafka's controller": self.ports.kafka_controller,
                "the metrics of Kafka": self.ports.kafka_metrics,
            }
            programs.append(
                Program(
                    "kafka",
                    self.kafka.command,
                    self.kafka.environment,
                    self.kafka.is_ready,
                    scraped_at=self.ports.kafka_metrics,
                    listens=listens,
                    address=self.kafka.bootstrap,
                )
            )
        if "registry" not in self.given:
            ports = {"the registry": self.ports.registry, "its management": self.ports.registry_management}
            programs.append(
                Program(
                    "registry",
                    self.registry.command,
                    self.registry.environment,
                    self.registry.is_ready,
                    listens=ports,
                    address=f"http://{LOOPBACK}:{self.ports.registry}",
                )
            )
        return programs

    def workers(self) -> list[Program]:
        """Our own processes, in the order of the flow."""
        self._next_metrics_port = self.ports.metrics
        kafka = self.kafka_environment() | self.lineage_environment
        reads = kafka | self.results_environment(databases.READER)
        writes = kafka | self.results_environment(databases.WRITER)
        # Workers write reports to barriers, and mark a candidate as failed.
        works = writes | {"ELECTRORED_STATE_DIR": str(self.layout.folder)}
        capture = kafka | self.sales_environment(databases.CAPTURE)
        programs = [self._ours("capture", ["sources", "postgres"], capture)]
        for pipeline, name in PIPELINES.items():
            programs.append(self._ours(name, ["streaming", "work", pipeline, "--slot", "0"], works))
        programs.append(self._ours("sink", ["streaming", "sink"], writes))
        programs.append(self._ours("publisher", ["streaming", "publish"], reads))
        programs.append(self._api())
        programs.append(self._ours("observer", ["observability"], self.observer_environment))
        if self.simulates:
            programs.append(
                Program(
                    "simulator",
                    _module("simulators", "sales"),
                    self.sales_environment(databases.SHOP),
                    lambda: True,
                )
            )
            programs.append(self._payments())
        if self.simulates_files:
            inbox = {"ELECTRORED_CSV_INBOX": self.csv_inbox}
            programs.append(
                Program("simulator-csv", _module("simulators", "csv"), inbox, lambda: True),
            )
        return programs

    def _payments(self) -> Program:
        journal = str(self.layout.folder / "payments.sqlite3")
        return Program(
            "payments",
            _module("simulators", "payments", "--port", str(self.ports.payments), "--journal", journal),
            self.sales_environment(databases.SHOP) | self.soap_environment,
            lambda: probes.http_ok(f"http://{LOOPBACK}:{self.ports.payments}/health"),
            listens={"the payment service": self.ports.payments},
            address=f"{self.payments_url}?wsdl",
        )

    def _ours(self, name: str, arguments: list[str], environment: dict[str, str]) -> Program:
        port = self._next_metrics_port
        self._next_metrics_port += 1
        return Program(
            name,
            _module(*arguments),
            environment | {"ELECTRORED_METRICS_PORT": str(port)},
            lambda: probes.metrics_ok(port),
            metrics_port=port,
            scraped_at=port,
            listens={f"the metrics of {name}": port},
        )

    def _api(self) -> Program:
        api = {"ELECTRORED_API_HOST": LOOPBACK, "ELECTRORED_API_PORT": str(self.ports.api)}
        return Program(
            "api",
            _module("api"),
            self.results_environment(databases.READER) | api,
            lambda: probes.http_ok(f"{self.api_url}/readyz"),
            scraped_at=self.ports.api,
            listens={"the API": self.ports.api},
            address=f"{self.api_url}/docs",
        )

    def dagster(self) -> list[Program]:
        """The conductor; last, because it costs the most to start and no result waits for it."""
        environment = self.dagster_environment
        # Daemon and webserver load none of our code, which configures logs elsewhere.
        form = ["--log-format", "json"] if LogSettings().log_format == "json" else []
        workspace = ["-w", str(PROJECT / "workspace.yaml"), *form]
        code_port, web_port = str(self.ports.dagster_code), str(self.ports.dagster)
        module = ["-m", "electrored_dagster.code_location"]
        # Not `code-server start`: that proxy does not report its runs, so lost ones would never be noticed.
        code = ["api", "grpc", "-h", LOOPBACK, "-p", code_port, *module, *form]
        return [
            Program(
                "dagster-code",
                [script("dagster"), *code],
                # Runs are its children: they write the sale index to the results database, and build generations.
                environment | self.csv_environment | self.replay_environment,
                lambda: answers(self.ports.dagster_code),
                listens={"Dagster's code server": self.ports.dagster_code},
            ),
            Program(
                "dagster-daemon",
                [script("dagster-daemon"), "run", *workspace],
                environment,
                lambda: probes.dagster_daemons_alive(self.dagster_url(databases.DAGSTER_ROLE)),
            ),
            Program(
                "dagster-web",
                [script("dagster-webserver"), "-h", LOOPBACK, "-p", web_port, *workspace],
                environment,
                lambda: probes.dagster_loaded(self.dagster_web_url),
                listens={"Dagster's web server": self.ports.dagster},
                address=self.dagster_web_url,
            ),
        ]

    def all(self) -> list[Program]:
        return [*self.servers(), *self.workers(), *self.dagster()]


def _module(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def script(name: str) -> str:
    """A command of the environment that this Python belongs to, independent of PATH."""
    return str(Path(sys.executable).parent / name)
