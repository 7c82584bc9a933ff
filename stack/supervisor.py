"""supervisord, which runs the processes: its configuration, and its XML-RPC calls over a socket."""

from __future__ import annotations

import http.client
import os
import resource
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from stack.ends import End, ends
from stack.errors import StackError
from stack.layout import Layout
from stack.orphans import MARK
from stack.programs import PROJECT, STOP_SECONDS, Program

# A process that dies within them counts as not started, and the next try waits a second longer than the last.
STABLE_SECONDS = 5
# Never given up: Kafka may be away for hours. A process that refuses to go on is restarted too, so that it goes on
# once its cause is mended; `status` shows it as refused meanwhile.
START_RETRIES = 1_000_000
LOG_BYTES = "10MB"
LOG_BACKUPS = 2
START_TIMEOUT_SECONDS = 20.0
# The broker and RocksDB keep many files open.
OPEN_FILES = 65_536


def render(layout: Layout, programs: Iterable[Program]) -> str:
    """The configuration file: nothing starts by itself, everything that dies is started again."""
    lines = [
        "[supervisord]",
        # Otherwise it warns about root twice.
        *(["user=root"] if os.geteuid() == 0 else []),
        f"logfile={_value(layout.supervisor_log)}",
        # Restarts are counted from it, so it is kept whole.
        "logfile_maxbytes=0",
        f"pidfile={_value(layout.folder / 'supervisord.pid')}",
        f"childlogdir={_value(layout.logs)}",
        "[unix_http_server]",
        f"file={_value(layout.socket)}",
        "chmod=0700",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for program in programs:
        lines += [
            f"[program:{program.name}]",
            f"command={_value(shlex.join(program.command))}",
            f"environment={_environment(program.environment)}",
            f"directory={_value(PROJECT)}",
            *([f"user={program.user}"] if program.user else []),
            "autostart=false",
            "autorestart=true",
            f"startsecs={STABLE_SECONDS}",
            f"startretries={START_RETRIES}",
            f"stopsignal={program.stop_signal}",
            f"stopwaitsecs={STOP_SECONDS}",
            # PostgreSQL signals its own children; one to the group as well would be a second, different order.
            f"stopasgroup={'false' if program.user or program.stop_signal == 'INT' else 'true'}",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={_value(layout.log(program.name))}",
            f"stdout_logfile_maxbytes={LOG_BYTES}",
            f"stdout_logfile_backups={LOG_BACKUPS}",
        ]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """supervisord expands `%`, and takes ` ;` and ` #` for the beginning of a comment."""
    text = str(value).replace("%", "%%")
    if any(part in text for part in (" ;", " #", "\n")):
        raise StackError(f"a path or setting has a line end, ` ;` or ` #` in it: {value}", "use another one")
    return text


def _environment(variables: Mapping[str, str]) -> str:
    """Double quotes end a value, and supervisord strips quotes of both kinds from its ends."""
    for name, value in variables.items():
        if '"' in value or value.strip("'") != value:
            raise StackError(f"{name} has a quote where none can be kept", "percent-encode it")
    return ",".join(f'{name}="{_value(value)}"' for name, value in variables.items())


@dataclass(frozen=True)
class State:
    """The state of a process, as supervisord reports it."""

    name: str
    state: str
    pid: int
    started_at: int
    problem: str


class Supervisor:
    """A supervisord of one state folder, running or not."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def start(self, programs: Iterable[Program]) -> None:
        """Start it, with nothing running yet."""
        layout = self._layout
        config = layout.supervisor_config
        config.touch(mode=0o600)
        config.write_text(render(layout, programs))
        layout.supervisor_log.unlink(missing_ok=True)
        layout.socket.unlink(missing_ok=True)
        _raise_limit()
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
        # It daemonizes itself, so that it outlives this command.
        done = subprocess.run(
            command,
            env=dict(os.environ) | {MARK: str(layout.folder)},
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_SECONDS,
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while done.returncode == 0 and not self.is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not self.is_running():
            reason = done.stderr.strip() or done.stdout.strip() or last_line(layout.supervisor_log)
            raise StackError(f"supervisord did not start: {reason}", f"read {layout.supervisor_log}")

    def is_running(self) -> bool:
        try:
            self._call("getState")
        except SupervisorStopping:
            return True
        except SupervisorGone:
            return False
        return True

    def pid(self) -> int:
        """supervisord's own pid. Raises SupervisorGone."""
        return int(self._call("getPID"))

    def states(self) -> dict[str, State]:
        """By name of process. Raises SupervisorGone."""
        states = {}
        for info in self._call("getAllProcessInfo"):
            problem = info["spawnerr"]
            states[info["name"]] = State(
                info["name"], info["statename"].lower(), info["pid"], info["start"], problem
            )
        return states

    def ends(self) -> dict[str, list[End]]:
        """The ends of each process that were not requested, since its last requested start."""
        return ends(self._layout.supervisor_log)

    def start_process(self, name: str) -> None:
        self._call("startProcess", name, False)

    def stop_process(self, name: str) -> None:
        """Request its stop; `states` shows when it has ended."""
        try:
            self._call("stopProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.NOT_RUNNING:
                raise

    def shutdown(self) -> None:
        """End supervisord and the processes that it still runs; returns when it has ended."""
        # By its process: socket and pid file are removed a moment before it ends.
        process = psutil.Process(self.pid())
        self._call("shutdown")
        _, alive = psutil.wait_procs([process], timeout=STOP_SECONDS + 10)
        for stubborn in alive:
            stubborn.kill()
            stubborn.wait(STOP_SECONDS)

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._layout.socket}")
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport)
        try:
            return getattr(server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.SHUTDOWN_STATE:
                raise SupervisorStopping from fault
            raise
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise SupervisorGone from error
        finally:
            transport.close()


class SupervisorGone(Exception):
    """supervisord does not answer: not started, stopped, or killed."""


class SupervisorStopping(SupervisorGone):
    """supervisord is shutting down, and accepts no more calls."""


def last_line(log: Path) -> str:
    """The last line that is not blank, or a text that there is none."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "it wrote nothing"


def _raise_limit() -> None:
    """Raise the children's limit of open files to OPEN_FILES, or as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
