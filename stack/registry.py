"""The schema registry: Apicurio with its data in PostgreSQL, used through the Confluent-compatible API."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from stack import java
from stack.ports import LOOPBACK, answers

READY_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Registry:
    """A registry process on two loopback ports; `database` is where its schemas are kept."""

    folder: Path
    port: int
    management_port: int
    database: URL

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/apis/ccompat/v7"

    @property
    def home(self) -> Path:
        """The program's folder, fetched and unpacked once per user."""
        (archive,) = java.fetch("registry")
        return java.unpack(archive)

    @property
    def command(self) -> list[str]:
        """With the C1 compiler only: ready in half the time, and each process requests a schema once."""
        return [
            str(java.java()),
            "-Xms64m",
            "-Xmx384m",
            "-XX:TieredStopAtLevel=1",
            f"-Dquarkus.http.host={LOOPBACK}",
            f"-Dquarkus.http.port={self.port}",
            # Without its own address it would listen on every interface.
            f"-Dquarkus.management.host={LOOPBACK}",
            f"-Dquarkus.management.port={self.management_port}",
            "-Dquarkus.log.level=WARN",
            "-jar",
            str(self.home / "quarkus-run.jar"),
        ]

    @property
    def environment(self) -> dict[str, str]:
        database = self.database
        return {
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "postgresql",
            "APICURIO_DATASOURCE_URL": f"jdbc:postgresql://{database.host}:{database.port}/{database.database}",
            "APICURIO_DATASOURCE_USERNAME": str(database.username),
            "APICURIO_DATASOURCE_PASSWORD": str(database.password),
            # 20 by default, each of which answers one request with an error after PostgreSQL was away.
            "APICURIO_DATASOURCE_JDBC_INITIAL_SIZE": "1",
            "APICURIO_DATASOURCE_JDBC_MIN_SIZE": "1",
            "QUARKUS_DATASOURCE_POSTGRESQL_JDBC_VALIDATE_ON_BORROW": "true",
        }

    def is_ready(self) -> bool:
        """Whether the compatible API answers."""
        return answers(self.port) and is_ready(self.url)


def is_ready(url: str) -> bool:
    """Whether the registry at this URL lists its subjects."""
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=READY_TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
