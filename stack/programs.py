"""Every process of the platform: its command, its environment, when it counts as ready, and what it opens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from contracts.settings import StackSettings
from stack import databases, probes
from stack.errors import StackError
from stack.kafka import Kafka
from stack.layout import Layout, Options
from stack.ports import LOOPBACK, Ports, answers
from stack.postgres import SUPERUSER, Postgres, system_user
from stack.registry import Registry
from stack.secrets import passwords

PROJECT = Path(__file__).resolve().parent.parent
# A worker commits or aborts before it goes; PostgreSQL and Kafka write what they hold.
STOP_SECONDS = 20
# One worker for each pipeline; more are started by hand or by a cluster.
PIPELINES = {"top-sales-by-city": "worker-city", "top-salesman-by-country": "worker-salesman"}


@dataclass(frozen=True)
class Program:
    """One supervised process. `listens` are ports that must be free, `address` is what a person opens."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    is_ready: Callable[[], bool]
    stop_signal: str = "TERM"
    user: str | None = None
    metrics_port: int | None = None
    listens: Mapping[str, int] = field(default_factory=dict)
    address: str = ""


class Platform:
    """The processes of one stack, and every address in it; nothing is started here."""

    def __init__(self, layout: Layout, options: Options, settings: StackSettings) -> None:
        self.layout, self.options, self.settings = layout, options, settings
        self.ports = Ports.with_offset(options.port_offset)
        self.passwords = passwords(layout.secrets, (SUPERUSER, *databases.ROLES))
        self.kafka = Kafka(layout.folder / "kafka", self.ports.kafka, self.ports.kafka_controller)
        self.postgres = Postgres(layout.folder / "postgres", self.ports.postgres, self.passwords[SUPERUSER])
        self.registry = Registry(
            layout.folder / "registry",
            self.ports.registry,
            self.ports.registry_management,
            self._url(databases.REGISTRY, databases.REGISTRY_ROLE),
        )
        self._next_metrics_port = self.ports.metrics

    def _url(self, database: str, role: str) -> URL:
        return self.postgres.url(database, role, self.passwords[role])

    def watermark(self) -> datetime | None:
        """How far the results are, as readers see it; None while some partition has not said."""
        return probes.watermark(self.results_url(databases.READER))

    # What is used: ours, unless an address was given.

    @property
    def bootstrap(self) -> str:
        return self.settings.kafka_bootstrap or self.kafka.bootstrap

    @property
    def registry_url(self) -> str:
        return self.settings.schema_registry_url or self.registry.url

    def sales_url(self, role: str) -> URL:
        return _given(self.settings, "sales") or self._url(databases.SALES, role)

    def results_url(self, role: str) -> URL:
        return _given(self.settings, "results") or self._url(databases.RESULTS, role)

    @property
    def dagster_url(self) -> URL:
        return _given(self.settings, "dagster") or self._url(databases.DAGSTER, databases.DAGSTER_ROLE)

    @property
    def given(self) -> list[str]:
        """Names of what is used and not started."""
        addresses = {
            "kafka": self.settings.kafka_bootstrap,
            "registry": self.settings.schema_registry_url,
            "sales": self.settings.sales_db_url,
            "results": self.settings.results_db_url,
            "dagster": self.settings.dagster_db_url,
        }
        return [name for name, address in addresses.items() if address]

    @property
    def needs_postgres(self) -> bool:
        return not {"registry", "sales", "results", "dagster"} <= set(self.given)

    @property
    def simulates(self) -> bool:
        """Never into a database that is not ours."""
        return self.options.simulate and "sales" not in self.given

    # Environments: one variable, per process its own role.

    def _kafka_environment(self) -> dict[str, str]:
        return {
            "ELECTRORED_KAFKA_BOOTSTRAP": self.bootstrap,
            "ELECTRORED_SCHEMA_REGISTRY_URL": self.registry_url,
        }

    def _sales_environment(self, role: str) -> dict[str, str]:
        return {"ELECTRORED_SALES_DB_URL": _text(self.sales_url(role))}

    def _results_environment(self, role: str) -> dict[str, str]:
        return {"ELECTRORED_RESULTS_DB_URL": _text(self.results_url(role))}

    @property
    def setup_environment(self) -> dict[str, str]:
        """For `contracts setup` and `streaming init`: the owner of the results database."""
        return self._kafka_environment() | self._results_environment(databases.WRITER)

    @property
    def history_environment(self) -> dict[str, str]:
        return self._sales_environment(databases.SHOP)

    @property
    def dagster_environment(self) -> dict[str, str]:
        return (
            self._kafka_environment()
            | self._results_environment(databases.READER)
            | {
                "DAGSTER_HOME": str(self.layout.dagster_home),
                "DAGSTER_DISABLE_TELEMETRY": "yes",
                "ELECTRORED_DAGSTER_DB_URL": _text(self.dagster_url),
                "ELECTRORED_DAGSTER_CODE_HOST": LOOPBACK,
                "ELECTRORED_DAGSTER_CODE_PORT": str(self.ports.dagster_code),
            }
        )

    @property
    def connection_environment(self) -> dict[str, str]:
        """What a person or a tool needs to connect, with the roles that are meant for them."""
        return {
            **self._kafka_environment(),
            **self._sales_environment(databases.SHOP),
            **self._results_environment(databases.READER),
            "ELECTRORED_API_URL": self.api_url,
            "ELECTRORED_DAGSTER_URL": self.dagster_web_url,
            "ELECTRORED_CSV_INBOX": str(self.layout.csv_inbox),
        }

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.api}"

    @property
    def dagster_web_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.dagster}"

    # The processes, in the order in which they start.

    def servers(self) -> list[Program]:
        """What the rest stands on, as far as it is ours; PostgreSQL first."""
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
            listens = {"Kafka": self.ports.kafka, "Kafka's controller": self.ports.kafka_controller}
            programs.append(
                Program(
                    "kafka",
                    self.kafka.command,
                    self.kafka.environment,
                    self.kafka.is_ready,
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
        kafka = self._kafka_environment()
        reads = kafka | self._results_environment(databases.READER)
        works = reads | {"ELECTRORED_STATE_DIR": str(self.layout.folder)}
        capture = kafka | self._sales_environment(databases.CAPTURE)
        programs = [self._ours("capture", ["sources", "postgres"], capture)]
        for pipeline, name in PIPELINES.items():
            programs.append(self._ours(name, ["streaming", "work", pipeline, "--slot", "0"], works))
        sink = kafka | self._results_environment(databases.WRITER)
        programs.append(self._ours("sink", ["streaming", "sink"], sink))
        programs.append(self._ours("publisher", ["streaming", "publish"], reads))
        programs.append(self._api())
        if self.simulates:
            programs.append(
                Program(
                    "simulator",
                    _module("simulators", "sales"),
                    self._sales_environment(databases.SHOP),
                    lambda: True,
                )
            )
        return programs

    def _ours(self, name: str, arguments: list[str], environment: dict[str, str]) -> Program:
        port = self._next_metrics_port
        self._next_metrics_port += 1
        return Program(
            name,
            _module(*arguments),
            environment | {"ELECTRORED_METRICS_PORT": str(port)},
            lambda: probes.metrics_ok(port),
            metrics_port=port,
            listens={f"the metrics of {name}": port},
        )

    def _api(self) -> Program:
        api = {"ELECTRORED_API_HOST": LOOPBACK, "ELECTRORED_API_PORT": str(self.ports.api)}
        return Program(
            "api",
            _module("api"),
            self._results_environment(databases.READER) | api,
            lambda: probes.http_ok(f"{self.api_url}/readyz"),
            listens={"the API": self.ports.api},
            address=f"{self.api_url}/docs",
        )

    def dagster(self) -> list[Program]:
        """The conductor; last, because it costs the most to start and no result waits for it."""
        environment = self.dagster_environment
        workspace = ["-w", str(PROJECT / "workspace.yaml")]
        code_port, web_port = str(self.ports.dagster_code), str(self.ports.dagster)
        module = ["-m", "electrored_dagster.definitions"]
        # Not `code-server start`: that proxy cannot say which runs it has, so lost ones would never be noticed.
        code = ["api", "grpc", "-h", LOOPBACK, "-p", code_port, *module]
        return [
            Program(
                "dagster-code",
                [script("dagster"), *code],
                environment,
                lambda: answers(self.ports.dagster_code),
                listens={"Dagster's code server": self.ports.dagster_code},
            ),
            Program(
                "dagster-daemon",
                [script("dagster-daemon"), "run", *workspace],
                environment,
                lambda: probes.dagster_daemons_alive(self.dagster_url),
            ),
            Program(
                "dagster-web",
                [script("dagster-webserver"), "-h", LOOPBACK, "-p", web_port, *workspace],
                environment,
                lambda: probes.http_ok(f"{self.dagster_web_url}/server_info"),
                listens={"Dagster's web server": self.ports.dagster},
                address=self.dagster_web_url,
            ),
        ]

    def all(self) -> list[Program]:
        return [*self.servers(), *self.workers(), *self.dagster()]


def _given(settings: StackSettings, database: str) -> URL | None:
    """The URL that was set for the database. Raises StackError if it is none."""
    secret: SecretStr | None = getattr(settings, f"{database}_db_url")
    if secret is None:
        return None
    try:
        return make_url(secret.get_secret_value())
    except ArgumentError:
        raise StackError(
            f"the setting ELECTRORED_{database.upper()}_DB_URL is no database URL",
            "write it as postgresql+psycopg2://user:password@host:port/database",
        ) from None


def _module(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def script(name: str) -> str:
    """A command of the environment that this Python belongs to, whatever PATH says."""
    return str(Path(sys.executable).parent / name)


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
