"""A PostgreSQL of a test's own: to be stopped, killed, copied and put back."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGINT
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import URL

from contracts.settings import SalesDbSettings
from contracts.topics import DEAD_LETTERS, SALES_EVENTS, SOURCE_POSITIONS
from kafka_client import clients
from sources.postgres.writer import Topics
from stack import databases
from stack.embedded import Embedded, child, until_ready
from stack.ports import free
from stack.postgres import Postgres, system_user
from tests.support.capture import Sales

PASSWORD = "secret"
# A checkpoint of its own would persist the slot whenever it likes.
SETTINGS = {"max_prepared_transactions": "5", "checkpoint_timeout": "1h", "fsync": "off"}


@dataclass
class Server:
    """One server; `copy` and `put_back` are those of its data folder while it is stopped."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)
    port: int = field(default_factory=lambda: free(1)[0])

    def __post_init__(self) -> None:
        self._running = ExitStack()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def postgres(self) -> Postgres:
        return Postgres(self.folder, self.port, PASSWORD, self.settings)

    def start(self) -> None:
        self.postgres.prepare()
        self.postgres.drop_stale_lock()
        self.process = self._running.enter_context(
            child(
                self.postgres.command,
                self.postgres.environment,
                self.folder / "postgres.log",
                stop=SIGINT,
                user=system_user(),
            )
        )
        until_ready("postgres", self.postgres.is_ready, self.process, self.folder)

    def stop(self) -> None:
        self._running.close()

    def kill(self) -> None:
        """Without a checkpoint: the slot is as it was persisted last."""
        assert self.process is not None
        self.process.kill()
        self.stop()

    def copy(self, name: str = "copy") -> None:
        subprocess.run(["rm", "-rf", self.folder / name], check=True)
        subprocess.run(["cp", "-a", self.postgres.data, self.folder / name], check=True)

    def put_back(self, name: str = "copy") -> None:
        subprocess.run(["rm", "-rf", self.postgres.data], check=True)
        subprocess.run(["cp", "-a", self.folder / name, self.postgres.data], check=True)

    @property
    def url(self) -> URL:
        return self.postgres.url("sales")

    def provision(self) -> None:
        databases.provision_sales_server(
            self.postgres.url("postgres"), dict.fromkeys(databases.SALES_ROLES, PASSWORD)
        )

    def sales(self, stack: Embedded, role: str | None = None) -> Sales:
        """Its sales with new topics."""
        suffix = uuid4().hex[:12]
        topics = Topics(
            *(replace(t, name=f"{t.name}-{suffix}") for t in (SALES_EVENTS, SOURCE_POSITIONS, DEAD_LETTERS))
        )
        clients.ensure_topics(stack.kafka, (topics.events, topics.positions, topics.dead_letters))
        url = self.url if role is None else self.postgres.url("sales", role, PASSWORD)
        settings = SalesDbSettings(
            sales_db_url=SecretStr(url.render_as_string(hide_password=False)), sales_slot=f"slot_{suffix}"
        )
        return Sales(stack, settings, topics)
