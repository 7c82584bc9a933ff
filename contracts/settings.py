"""Typed environment: the only module that reads it. Every variable starts with ELECTRORED_.

Where ELECTRORED_SECRETS_DIR names a folder, a setting may be a file in it instead, of the variable's name in small
letters (`electrored_results_db_url`): what is mounted there stands in no environment. A variable that is set wins.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts.calendar import checked_grace
from contracts.zones import known_zone


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _split(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="ELECTRORED_",
        extra="ignore",
        frozen=True,
        secrets_dir=os.environ.get("ELECTRORED_SECRETS_DIR"),
    )


S = TypeVar("S", bound=_Settings)


def from_environment(kind: type[S]) -> S:
    """The settings of a process that starts. Ends it with one line per variable that is missing or wrong."""
    try:
        return kind()
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            name = "ELECTRORED_" + str(problem["loc"][0]).upper()
            lines.append(f"error: {name}: {problem['msg']}; `electrored env` shows what a running stack uses")
        raise SystemExit("\n".join(lines)) from error


class KafkaSettings(_Settings):
    """How to reach Kafka and its schema registry, ours or the company's own.

    A CA file is PEM; without one the system's authorities are trusted.
    """

    kafka_bootstrap: str
    schema_registry_url: str
    schema_registry_username: str | None = None
    schema_registry_password: SecretStr | None = None
    schema_registry_ca_file: str | None = None
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_ca_file: str | None = None
    # Replicas of every topic that is created; 1 is the embedded broker, 3 is usual on a cluster.
    kafka_replication_factor: int = 1


class SalesDbSettings(_Settings):
    """The sales database that change capture reads. The URL is SQLAlchemy's, with its driver named."""

    sales_db_url: SecretStr
    sales_table: str = "public.sales"
    sales_publication: str = "electrored_sales"
    sales_slot: str = "electrored_sales"
    # Capture stops when the publication was changed and tells a mark; here a person says that nothing was lost by it.
    sales_publication_accepted: str = ""


class SoapCredentials(_Settings):
    """Who asks the payment service; the service's simulator knows the same."""

    soap_username: str
    soap_password: SecretStr


class SoapSettings(SoapCredentials):
    """Where the payment service is. Its WSDL is shipped with the code; a `?wsdl` at the address's end says nothing."""

    soap_wsdl: str
    # Comma-separated; every other host is refused, whatever an address or an answer says.
    soap_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ("127.0.0.1", "localhost")
    # Send a digest of the password instead of the password itself.
    soap_digest: bool = False


class ResultsDbSettings(_Settings):
    """The results database: the writer's role for the sink, the reader's for the API."""

    results_db_url: SecretStr


class ServerSettings(_Settings):
    """A PostgreSQL server that is to be prepared: its superuser's URL, and as JSON the password of each role."""

    server_url: SecretStr
    role_passwords: dict[str, SecretStr]


class CsvSettings(_Settings):
    """The folder that files of sales are put in, and what its files look like."""

    csv_inbox: Path
    # A file that was not renamed into place is taken when nobody has written to it for so long.
    csv_settle_seconds: float = Field(default=5.0, ge=0)
    # One run takes all that waits, so often at most: a run costs about 5 CPU-seconds before it has read a row.
    csv_every_seconds: float = Field(default=30.0, gt=0)
    # 12,50 instead of 12.50; the separator of the columns is found in the first line.
    csv_decimal_comma: bool = False


class WindowSettings(_Settings):
    """Parameters that a new generation is created with; a living generation keeps its own."""

    time_zone: Annotated[str, AfterValidator(known_zone)] = "UTC"
    # ISO 8601: PT1H30M.
    grace: Annotated[timedelta, AfterValidator(checked_grace)] = timedelta(hours=1)
    salesman_calendar: Literal["30-days", "calendar-month"] = "30-days"


class ReplaySettings(_Settings):
    """For who computes a pipeline again: where, and how much of a machine it may take."""

    # The platform's; the stores of slices are below it while they run.
    state_dir: Path = Path(".electrored")
    # Slices at a time, and how much of the time each of them works; unset: as live traffic can bear on two cores.
    replay_processes: int = Field(default=1, ge=1)
    replay_share: float | None = Field(default=None, ge=0.05, le=1)


class ApiSettings(ResultsDbSettings):
    """Where the API listens."""

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8082, ge=1, le=65535)


class LogSettings(_Settings):
    """How processes log: `console` for people, `json` for machines; where Prometheus may scrape them."""

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_port: int | None = None
    # In a container every address: there it is the container that keeps others out.
    metrics_host: str = "127.0.0.1"


class ObserverSettings(ResultsDbSettings):
    """What the observer looks at beside Kafka and the results database; unset: it says nothing of that."""

    csv_inbox: Path | None = None
    dagster_db_url: SecretStr | None = None
    # Where OpenLineage events of all processes wait.
    lineage_dir: Path | None = None
    # The server of the sales database; whoever may connect may look at its slots.
    sales_db_url: SecretStr | None = None
    sales_slot: str = "electrored_sales"
    # The disk that it is on is watched.
    state_dir: Path | None = None


class LineageSettings(_Settings):
    """What OpenLineage events are named by. Where they go is said by openlineage-python's own settings (OPENLINEAGE_…);
    without any: to the topic `openlineage-events`.
    """

    # Where events wait that could not be sent yet; unset: in a folder that ends with the process.
    lineage_dir: Path | None = None
    lineage_namespace: str = "electrored"
    # Between two events of a run that goes on.
    lineage_every_seconds: float = Field(default=60.0, gt=0)
    # How long the topic keeps them, from its first start on.
    lineage_retention: timedelta = timedelta(days=7)
    # Where it is read, for links.
    api_url: str = "http://127.0.0.1:8082"
    # A link to the code in a repository; the path within it is put behind it.
    source_url: str = ""


class StackSettings(_Settings):
    """What `electrored` is not to start, because it is already there; unset: it starts its own.

    A sales database of the company's own is read and never written, and into an inbox of its own no file is dropped:
    the simulators stay off.
    """

    kafka_bootstrap: str | None = None
    schema_registry_url: str | None = None
    sales_db_url: SecretStr | None = None
    results_db_url: SecretStr | None = None
    dagster_db_url: SecretStr | None = None
    # Absolute, for whoever reads it later from another folder.
    csv_inbox: Annotated[str | None, AfterValidator(_absolute)] = None
