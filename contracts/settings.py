"""Typed environment: the only module that reads it. Every variable starts with ELECTRORED_.

Where ELECTRORED_SECRETS_DIR names a folder, a setting may be a file in it instead, of the variable's name in small
letters (`electrored_results_db_url`), so that secrets can be mounted. A variable that is set takes precedence.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
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


# libpq's: a server that is cut off is noticed within about 10 seconds instead of TCP's quarter of an hour.
KEEPALIVES: Mapping[str, int] = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}

S = TypeVar("S", bound=_Settings)


def from_environment(kind: type[S]) -> S:
    """The settings of a process that starts; exits with one line per variable that is missing or wrong."""
    try:
        return kind()
    except ValidationError as error:
        hint = "`electrored env` shows what a running stack uses"
        raise SystemExit("\n".join(f"error: {line}; {hint}" for line in problems(error))) from error


def problems(error: ValidationError) -> list[str]:
    """What is missing or wrong, by variable."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        # A combination of settings has no location: its message names them.
        name = f"ELECTRORED_{problem['loc'][0]}: ".upper() if problem["loc"] else ""
        lines.append(f"{name}{problem['msg']}")
    return lines


def _variables(names: Iterable[str]) -> str:
    return " and ".join(f"ELECTRORED_{name}".upper() for name in names)


class KafkaSettings(_Settings):
    """How to reach Kafka and its schema registry, ours or the company's own.

    Files are PEM; without a CA file the system's authorities are trusted. A client certificate authenticates by itself
    with SSL; OAUTHBEARER takes tokens from an OpenID Connect provider by the client credentials grant.
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
    kafka_ssl_certificate_file: str | None = None
    kafka_ssl_key_file: str | None = None
    kafka_ssl_key_password: SecretStr | None = None
    kafka_oauth_token_url: str | None = None
    kafka_oauth_client_id: str | None = None
    kafka_oauth_client_secret: SecretStr | None = None
    kafka_oauth_scope: str | None = None
    # Replicas of every topic that is created; 1 is the embedded broker, 3 is usual on a cluster.
    kafka_replication_factor: int = 1

    @model_validator(mode="after")
    def _authentication_is_whole(self) -> Self:
        """librdkafka would ignore a half of these, or fail later with a message about the handshake."""
        certificate = ("kafka_ssl_certificate_file", "kafka_ssl_key_file")
        oauth = ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
        if self._given(*certificate, "kafka_ssl_key_password"):
            self._require(certificate, "a client certificate")
            if self.kafka_security_protocol not in ("SSL", "SASL_SSL"):
                raise ValueError(
                    "a client certificate needs ELECTRORED_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL, which is "
                    f"{self.kafka_security_protocol}"
                )
        if self.kafka_sasl_mechanism == "OAUTHBEARER":
            self._require(oauth, "OAUTHBEARER")
            if self.kafka_security_protocol not in ("SASL_PLAINTEXT", "SASL_SSL"):
                raise ValueError(
                    "OAUTHBEARER needs ELECTRORED_KAFKA_SECURITY_PROTOCOL=SASL_SSL, which is "
                    f"{self.kafka_security_protocol}"
                )
        elif given := self._given(*oauth, "kafka_oauth_scope"):
            raise ValueError(f"{_variables(given)} needs ELECTRORED_KAFKA_SASL_MECHANISM=OAUTHBEARER")
        return self

    def _given(self, *names: str) -> list[str]:
        return [name for name in names if self._value(name)]

    def _value(self, name: str) -> str:
        """Empty if it is not set, or set to nothing."""
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else value or ""

    def _require(self, names: tuple[str, ...], mechanism: str) -> None:
        if missing := [name for name in names if not self._value(name)]:
            raise ValueError(f"{mechanism} needs {_variables(missing)} too")


class SalesDbSettings(_Settings):
    """The sales database that change capture reads. The URL is SQLAlchemy's, with its driver named."""

    sales_db_url: SecretStr
    sales_table: str = "public.sales"
    sales_publication: str = "electrored_sales"
    sales_slot: str = "electrored_sales"
    # Capture stops when the publication was changed and logs a mark; set to that mark, it accepts the change.
    sales_publication_accepted: str = ""


class SoapCredentials(_Settings):
    """Credentials of the payment service's client; its simulator checks them."""

    soap_username: str
    soap_password: SecretStr


class SoapSettings(SoapCredentials):
    """The payment service's address; its WSDL is part of the code, and a `?wsdl` at the end is ignored."""

    soap_wsdl: str
    # Comma-separated; every other host is refused.
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
    # A file that was not renamed into place is taken when it was not written to for so long.
    csv_settle_seconds: float = Field(default=5.0, ge=0)
    # One run takes all that waits, so often at most: a run costs about 5 CPU-seconds before it has read a row.
    csv_every_seconds: float = Field(default=30.0, gt=0)
    # 12,50 instead of 12.50; the separator of the columns is detected in the first line.
    csv_decimal_comma: bool = False


class WindowSettings(_Settings):
    """Parameters of new generations; an existing generation keeps its own."""

    time_zone: Annotated[str, AfterValidator(known_zone)] = "UTC"
    # ISO 8601: PT1H30M.
    grace: Annotated[timedelta, AfterValidator(checked_grace)] = timedelta(hours=1)
    salesman_calendar: Literal["30-days", "calendar-month"] = "30-days"


class ReplaySettings(_Settings):
    """Replays: their state folder, and how much of a machine they may take."""

    # The platform's state folder; the stores of slices are below it while they run.
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
    # In a container every address: there the container's network restricts access.
    metrics_host: str = "127.0.0.1"


class ObserverSettings(ResultsDbSettings):
    """What the observer probes beside Kafka and the results database; unset: not probed."""

    csv_inbox: Path | None = None
    dagster_db_url: SecretStr | None = None
    # The undelivered OpenLineage events of all processes.
    lineage_dir: Path | None = None
    # The server of the sales database; any role that may connect can read its slots.
    sales_db_url: SecretStr | None = None
    sales_slot: str = "electrored_sales"
    # The disk of this folder is monitored.
    state_dir: Path | None = None


class LineageSettings(_Settings):
    """Naming and delivery of OpenLineage events. Their transport is set by openlineage-python's own variables
    (OPENLINEAGE_…), by default the topic `openlineage-events`.
    """

    # Folder of undelivered events, on a local disk; unset: in a temporary file, and lost with the process.
    lineage_dir: Path | None = None
    lineage_namespace: str = "electrored"
    # Between two events of a run that goes on.
    lineage_every_seconds: float = Field(default=60.0, gt=0)
    # Retention of the topic, set at its creation.
    lineage_retention: timedelta = timedelta(days=7)
    # Base URL of the API, for links.
    api_url: str = "http://127.0.0.1:8082"
    # Base URL of the code; a path in this repository is appended.
    source_url: str = ""


class StackSettings(_Settings):
    """Existing systems that `electrored` uses instead of starting its own.

    A sales database of the company's is read and never written, and its inbox gets no files: the simulators stay off.
    """

    kafka_bootstrap: str | None = None
    schema_registry_url: str | None = None
    sales_db_url: SecretStr | None = None
    results_db_url: SecretStr | None = None
    dagster_db_url: SecretStr | None = None
    # Absolute, because processes run in other folders.
    csv_inbox: Annotated[str | None, AfterValidator(_absolute)] = None
