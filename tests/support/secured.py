"""Servers with TLS only and authenticated users: Kafka with rights, PostgreSQL, the registry."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL

from stack.embedded import Embedded
from stack.kafka import Kafka

ADMIN = "admin"
REGISTRY_USER = "registry-user"


@dataclass(frozen=True)
class SecureKafka(Kafka):
    """A TLS-only broker that authenticates users and denies what was not granted."""

    pem: Path = Path()
    users: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> subprocess.Popen[bytes] | None:
        """Every refusal is a line of the log."""
        formatting = super().prepare()
        with (self.folder / "log4j2.properties").open("a") as file:
            file.write("logger.rights.name = kafka.authorizer.logger\nlogger.rights.level = info\n")
        return formatting

    def properties(self) -> dict[str, str]:
        plain = super().properties()
        users = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        login = f'username="{ADMIN}" password="{self.users[ADMIN]}"'
        jaas = f"org.apache.kafka.common.security.plain.PlainLoginModule required {login} {users};"
        return plain | {
            "listeners": plain["listeners"].replace("PLAINTEXT://", "SASL_SSL://"),
            "advertised.listeners": plain["advertised.listeners"].replace("PLAINTEXT://", "SASL_SSL://"),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": jaas,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.pem / "server.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.pem / "ca.pem"),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # Only the controller's own listener, on the loopback, is anonymous.
            "super.users": f"User:{ADMIN};User:ANONYMOUS",
        }


@dataclass(frozen=True)
class Secured:
    """Addresses of the secured servers, and each process's settings for its own user."""

    stack: Embedded
    folder: Path
    kafka: SecureKafka
    postgres_port: int
    registry_url: str
    registry_password: str
    # A fresh database each, on the shared server.
    sales: str
    results: str
    dagster: str

    def refusals(self) -> list[str]:
        """What the broker denied so far, in its own words."""
        lines = (self.folder / "kafka.log").read_text().splitlines()
        return [line for line in lines if " is Denied " in line]

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def database(self, name: str, role: str) -> URL:
        url = self.stack.postgres(name, role).set(port=self.postgres_port)
        return url.update_query_dict({"sslmode": "verify-full", "sslrootcert": self.ca})

    def settings(self, user: str) -> dict[str, str]:
        """A process's settings for Kafka and the registry as the user; the passwords are its secrets."""
        return {
            "ELECTRORED_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "ELECTRORED_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "ELECTRORED_KAFKA_SASL_MECHANISM": "PLAIN",
            "ELECTRORED_KAFKA_SASL_USERNAME": user,
            "ELECTRORED_KAFKA_SSL_CA_FILE": self.ca,
            "ELECTRORED_SCHEMA_REGISTRY_URL": self.registry_url,
            "ELECTRORED_SCHEMA_REGISTRY_USERNAME": REGISTRY_USER,
            "ELECTRORED_SCHEMA_REGISTRY_CA_FILE": self.ca,
            # Slots are a server's, and this one is shared.
            "ELECTRORED_SALES_SLOT": self.sales,
        }

    def secrets(self, user: str) -> dict[str, str]:
        return {
            "electrored_kafka_sasl_password": self.kafka.users[user],
            "electrored_schema_registry_password": self.registry_password,
        }
