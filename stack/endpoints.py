"""Addresses: of our own servers or of those given by setting, with the database role of each process."""

from __future__ import annotations

from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from contracts.settings import StackSettings
from stack import databases, probes
from stack.errors import StackError
from stack.kafka import Kafka
from stack.layout import Layout, Options
from stack.ports import LOOPBACK, Ports
from stack.postgres import SUPERUSER, Postgres
from stack.registry import Registry
from stack.secrets import passwords

# The user name at the simulated payment service.
SOAP_USER = "electrored_payments"

# Servers that may be given, and their settings.
GIVEN = {
    "kafka": "kafka_bootstrap",
    "registry": "schema_registry_url",
    "sales": "sales_db_url",
    "results": "results_db_url",
    "dagster": "dagster_db_url",
}


class Addresses:
    """Every address of one stack, and the environments of its processes."""

    def __init__(self, layout: Layout, options: Options, settings: StackSettings) -> None:
        self.layout, self.options, self.settings = layout, options, settings
        self.ports = Ports.with_offset(options.port_offset)
        self.passwords = passwords(layout.secrets, (SUPERUSER, *databases.ROLES, SOAP_USER))
        self.kafka = Kafka(
            layout.folder / "kafka", self.ports.kafka, self.ports.kafka_controller, self.ports.kafka_metrics
        )
        self.postgres = Postgres(layout.folder / "postgres", self.ports.postgres, self.passwords[SUPERUSER])
        self.registry = Registry(
            layout.folder / "registry",
            self.ports.registry,
            self.ports.registry_management,
            self._url(databases.REGISTRY, databases.REGISTRY_ROLE),
        )

    def _url(self, database: str, role: str) -> URL:
        return self.postgres.url(database, role, self.passwords[role])

    def watermark(self) -> datetime | None:
        """The watermark of the results, as readers see it; None while a partition has none."""
        return probes.watermark(self.results_url(databases.READER))

    # The server in use: ours, unless an address was given.

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

    def dagster_url(self, role: str) -> URL:
        return _given(self.settings, "dagster") or self._url(databases.DAGSTER, role)

    @property
    def given(self) -> list[str]:
        """Names of the servers that are used and not started."""
        return [name for name, setting in GIVEN.items() if getattr(self.settings, setting) is not None]

    @property
    def needs_postgres(self) -> bool:
        return not {"registry", "sales", "results", "dagster"} <= set(self.given)

    @property
    def simulates(self) -> bool:
        """Whether sales are simulated: never in a given database."""
        return self.options.simulate and "sales" not in self.given

    @property
    def csv_inbox(self) -> str:
        return self.settings.csv_inbox or str(self.layout.csv_inbox)

    @property
    def simulates_files(self) -> bool:
        """Whether files are simulated: never in a given folder or beside a given sales database."""
        return self.simulates and self.settings.csv_inbox is None

    # Environments: the same variables, with a role for each process.

    def kafka_environment(self) -> dict[str, str]:
        return {
            "ELECTRORED_KAFKA_BOOTSTRAP": self.bootstrap,
            "ELECTRORED_SCHEMA_REGISTRY_URL": self.registry_url,
        }

    @property
    def lineage_environment(self) -> dict[str, str]:
        """The folder in which events of lineage wait for their backend."""
        return {
            "ELECTRORED_LINEAGE_DIR": str(self.layout.folder / "lineage"),
            "ELECTRORED_API_URL": self.api_url,
        }

    def sales_environment(self, role: str) -> dict[str, str]:
        return {"ELECTRORED_SALES_DB_URL": _text(self.sales_url(role))}

    def results_environment(self, role: str) -> dict[str, str]:
        return {"ELECTRORED_RESULTS_DB_URL": _text(self.results_url(role))}

    @property
    def soap_environment(self) -> dict[str, str]:
        """The simulated payment service's; the settings of a given one are inherited."""
        if not self.simulates:
            return {}
        return {
            "ELECTRORED_SOAP_WSDL": f"{self.payments_url}?wsdl",
            "ELECTRORED_SOAP_USERNAME": SOAP_USER,
            "ELECTRORED_SOAP_PASSWORD": self.passwords[SOAP_USER],
        }

    @property
    def setup_environment(self) -> dict[str, str]:
        """For `contracts setup` and `streaming init`: the owner of the results database."""
        return self.kafka_environment() | self.results_environment(databases.WRITER)

    @property
    def history_environment(self) -> dict[str, str]:
        return self.sales_environment(databases.SHOP)

    @property
    def csv_environment(self) -> dict[str, str]:
        """For the CSV source, which writes the cache of what was taken."""
        return self.setup_environment | self.lineage_environment | {"ELECTRORED_CSV_INBOX": self.csv_inbox}

    @property
    def poll_environment(self) -> dict[str, str]:
        """For the SOAP source."""
        return self.kafka_environment() | self.soap_environment | self.lineage_environment

    @property
    def replay_environment(self) -> dict[str, str]:
        """For commands that build, compare, promote and retire generations."""
        return (
            self.setup_environment
            | self.lineage_environment
            | {"ELECTRORED_STATE_DIR": str(self.layout.folder)}
        )

    @property
    def observer_environment(self) -> dict[str, str]:
        """For the observer, which only reads."""
        return (
            self.kafka_environment()
            | self.results_environment(databases.READER)
            | self.sales_environment(databases.WATCHER)
            | {
                "ELECTRORED_CSV_INBOX": self.csv_inbox,
                "ELECTRORED_DAGSTER_DB_URL": _text(self.dagster_url(databases.READER)),
                "ELECTRORED_LINEAGE_DIR": str(self.layout.folder / "lineage"),
                "ELECTRORED_STATE_DIR": str(self.layout.folder),
            }
        )

    @property
    def dagster_environment(self) -> dict[str, str]:
        return (
            self.kafka_environment()
            | self.results_environment(databases.READER)
            | self.soap_environment
            | self.lineage_environment
            | {
                "DAGSTER_HOME": str(self.layout.dagster_home),
                "DAGSTER_DISABLE_TELEMETRY": "yes",
                "ELECTRORED_DAGSTER_DB_URL": _text(self.dagster_url(databases.DAGSTER_ROLE)),
                "ELECTRORED_DAGSTER_CODE_HOST": LOOPBACK,
                "ELECTRORED_DAGSTER_CODE_PORT": str(self.ports.dagster_code),
            }
        )

    @property
    def connection_environment(self) -> dict[str, str]:
        """The connection settings for users and tools, with their roles."""
        return {
            **self.kafka_environment(),
            **self.sales_environment(databases.SHOP),
            **self.results_environment(databases.READER),
            **self.soap_environment,
            "ELECTRORED_API_URL": self.api_url,
            "ELECTRORED_DAGSTER_URL": self.dagster_web_url,
            "ELECTRORED_CSV_INBOX": self.csv_inbox,
        }

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.api}"

    @property
    def payments_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.payments}/payments"

    @property
    def dagster_web_url(self) -> str:
        return f"http://{LOOPBACK}:{self.ports.dagster}"


def _given(settings: StackSettings, database: str) -> URL | None:
    """The URL that was set for the database. Raises StackError if it is not one."""
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


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
