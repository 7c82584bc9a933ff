"""The paths of a state folder, and the stored options of its stack."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from stack.errors import StackError

# Raised when older code could not read what newer code leaves behind.
FORMAT = 1
# The system's limit for the path of a Unix socket, less the suffix that supervisord adds while it binds.
LONGEST_SOCKET_PATH = 90


@dataclass(frozen=True)
class Options:
    """How a stack was started; stored, so that the other commands need only the state folder."""

    port_offset: int = 0
    simulate: bool = True
    history_days: int = 30
    # A detached stack outlives its command; one in the foreground belongs to it.
    detached: bool = False
    # Settings of servers that were given and therefore not started: they may hold passwords.
    given: dict[str, str] = field(default_factory=dict)
    # The command that holds the lock of the state folder as long as it lives.
    owner_pid: int = 0


class Layout:
    """The paths below a state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        self.record = self.folder / "stack.json"
        self.secrets = self.folder / "secrets.json"
        self.logs = self.folder / "logs"
        self.dagster_home = self.folder / "dagster"
        self.csv_inbox = self.folder / "inbox"
        self.prometheus = self.folder / "prometheus"
        self.supervisor_config = self.folder / "supervisord.conf"
        self.supervisor_log = self.logs / "supervisord.log"

    @property
    def socket(self) -> Path:
        """supervisord's socket; elsewhere, under a name of its own, where the path here would be too long."""
        path = self.folder / "supervisor.sock"
        if len(str(path)) <= LONGEST_SOCKET_PATH:
            return path
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"electrored-{name}.sock"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Create the folders. Raises StackError if that is not possible."""
        try:
            # Others may pass through, for PostgreSQL's user when root starts it; only the owner lists it.
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
            for folder in (self.logs, self.dagster_home, self.csv_inbox, self.prometheus):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise StackError(
                f"cannot write to the state folder {self.folder}: {error.strerror}",
                "choose another one with --state-dir, or make room",
            ) from error

    def options(self) -> Options | None:
        """The options of the last start, None before the first. Raises StackError for a newer format."""
        if not self.record.exists():
            return None
        stored = json.loads(self.record.read_text())
        if stored.pop("format") > FORMAT:
            raise StackError(
                f"the state in {self.folder} was written by a newer version of ElectroRed",
                "use that version, or another --state-dir",
            )
        return Options(**stored)

    def note(self, options: Options) -> None:
        draft = self.record.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps({"format": FORMAT} | asdict(options), indent=2))
        draft.replace(self.record)

    def lock(self) -> FileLock:
        """Held by the command that starts or stops the stack, and by `up` as long as it runs.

        Raises StackError if another command holds it.
        """
        lock = FileLock(self.folder / "up.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StackError(
                f"the stack in {self.folder} is up already, or a command is just starting or stopping it",
                "see `electrored status`; end it with `electrored down`, or use another --state-dir",
            ) from None
        return lock
