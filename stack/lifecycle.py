"""Starting and stopping the platform: in the order of the flow, each step when the one before is ready."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Protocol

from contracts.settings import StackSettings
from stack import databases, java, kafka, orphans, postgres, prometheus, registry
from stack.ends import end_reason
from stack.errors import StackError
from stack.layout import Layout, Options
from stack.ports import require_free
from stack.programs import PROJECT, STOP_SECONDS, Platform, Program, script
from stack.status import WORDS, Monitor, Row
from stack.supervisor import Supervisor, SupervisorGone, last_line

# On a cold and busy machine; each takes a few seconds on an idle one.
READY_TIMEOUT_SECONDS = 120.0
# A history of millions of rows is read first; after so long the start fails.
PROBE_TIMEOUT_SECONDS = 600.0
# How often the probe looks at what the processes wait for.
LOOK_SECONDS = 2.0
# A step of the preparation (migrations, topics, Dagster's tables) takes seconds.
STEP_TIMEOUT_SECONDS = 120
# Deaths in a row before a starting process counts as `dying`: one may be a race with Kafka.
DEATHS = 4
# The same for a process that refuses to go on, which waiting does not help.
REFUSALS = 2
# With less, Kafka and PostgreSQL would soon fail, with less clear messages.
NEEDED_BYTES = 500 * 1024 * 1024
# The order of stopping: first the processes that bring work, last the servers that all use.
STOP_ORDER = (
    {
        *("dagster-web", "dagster-daemon", "dagster-code"),
        *("simulator", "simulator-csv", "payments", "api", "capture", "observer"),
    },
    {"worker-city", "worker-salesman", "worker-enriched", "sink", "publisher"},
    {"registry", "kafka"},
    {"postgres"},
)


class Reporter(Protocol):
    """Shows the progress of a start or stop."""

    def doing(self, what: str) -> None: ...
    def done(self, what: str) -> None: ...


class Stack:
    """One platform of one state folder."""

    def __init__(self, layout: Layout, options: Options, settings: StackSettings, reporter: Reporter) -> None:
        self.layout, self.options, self._reporter = layout, options, reporter
        self.platform = Platform(layout, options, settings)
        self.supervisor = Supervisor(layout)

    def start(self) -> None:
        """Start everything; returns when every process is ready and the probe succeeded.

        Processes that a crash left are ended first. If the start fails, nothing is left running.
        """
        started_at = datetime.now(UTC)
        self._clear()
        self._check_given()
        self._check()
        self._download()
        try:
            self._start_servers()
            self._prepare()
            prometheus.write(self.layout.prometheus, self.platform.all())
            self._start_all(self.platform.workers())
            self._wait_for_result(started_at)
            self._start_dagster()
        except BaseException:
            self._reporter.doing("stopping again")
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything in order, and what a killed supervisor left."""
        try:
            for layer in STOP_ORDER:
                self._stop_layer(layer)
            self._reporter.doing("stopping the supervisor")
            self.supervisor.shutdown()
        except SupervisorGone:
            pass
        orphans.end(self.layout.folder)

    def _stop_layer(self, names: Iterable[str]) -> None:
        states = self.supervisor.states()
        running = [
            name for name in names if name in states and states[name].state not in ("stopped", "fatal")
        ]
        for name in running:
            self.supervisor.stop_process(name)
        deadline = time.monotonic() + STOP_SECONDS + 5
        while running and time.monotonic() < deadline:
            self._reporter.doing(f"stopping {', '.join(sorted(running))}")
            states = self.supervisor.states()
            running = [name for name in running if states[name].state in ("running", "starting", "stopping")]
            time.sleep(0.1)

    def _clear(self) -> None:
        if self.supervisor.is_running():
            self._reporter.doing("stopping what an ended command left running")
            self.stop()
        elif ended := orphans.end(self.layout.folder):
            self._reporter.done(f"ended {ended} processes that a killed supervisor had left")

    def _check(self) -> None:
        if shutil.disk_usage(self.layout.folder).free < NEEDED_BYTES:
            raise StackError(
                f"disk full: less than {NEEDED_BYTES // 2**20} MiB are free at {self.layout.folder}",
                "make room, or choose a folder on a larger disk with --state-dir",
            )
        for program in self.platform.all():
            for purpose, port in program.listens.items():
                require_free(port, purpose)
        self.platform.postgres.drop_stale_lock()

    def _download(self) -> None:
        java.java()
        wanted = {"kafka": ("kafka", java.JMX_EXPORTER), "registry": ("registry",)}
        for program in (
            name for server in wanted if server not in self.platform.given for name in wanted[server]
        ):
            got = 0

            def count(size: int, program: str = program) -> None:
                nonlocal got
                got += size
                self._reporter.doing(f"downloading {program}: {got / 1e6:.0f} MB")

            java.fetch(program, count)
            if got:
                self._reporter.done(f"downloaded {program}: {got / 1e6:.0f} MB, checksums verified")

    def _start_servers(self) -> None:
        """Start PostgreSQL, Kafka and the registry; the slowest begins first."""
        platform = self.platform
        self._reporter.doing("preparing Kafka and PostgreSQL")
        formatting = None if "kafka" in platform.given else platform.kafka.prepare()
        if platform.needs_postgres:
            platform.postgres.prepare()
        self.supervisor.start(platform.all())
        programs = {program.name: program for program in platform.servers()}
        if "postgres" in programs:
            self.supervisor.start_process("postgres")
        platform.kafka.finish(formatting)
        if "kafka" in programs:
            self.supervisor.start_process("kafka")
        if "postgres" in programs:
            self._wait(programs.pop("postgres"))
            databases.provision(platform.postgres.url("postgres"), platform.passwords)
        if "registry" in programs:
            self.supervisor.start_process("registry")
        for program in programs.values():
            self._wait(program)

    def _check_given(self) -> None:
        """Check that the given servers answer, before ours are started."""
        platform = self.platform
        answers: dict[str, Callable[[], bool]] = {
            "kafka": lambda: kafka.is_reachable(platform.bootstrap),
            "registry": lambda: registry.is_ready(platform.registry_url),
            "sales": lambda: postgres.is_ready(platform.sales_url(databases.CAPTURE)),
            "results": lambda: postgres.is_ready(platform.results_url(databases.WRITER)),
            "dagster": lambda: postgres.is_ready(platform.dagster_url(databases.DAGSTER_ROLE)),
        }
        for name in platform.given:
            self._reporter.doing(f"asking the given {name}")
            if not answers[name]():
                raise _unreachable(name)
            self._reporter.done(f"{name}: the given one is used")

    def _prepare(self) -> None:
        """Create tables, topics, schemas, the first generation; load past sales before change capture starts."""
        platform = self.platform
        days = self.options.history_days if platform.simulates else 0
        # Another database than the other two steps', so it need not wait for them.
        with ThreadPoolExecutor(1) as aside:
            arguments = ["simulators", "history", "--days", str(days)]
            history = (
                aside.submit(self._step, "history", arguments, platform.history_environment) if days else None
            )
            self._step("setup", ["contracts", "setup"], platform.setup_environment)
            self._step("init", ["streaming", "init"], platform.setup_environment)
            if history is not None:
                history.result()

    def _step(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self._run(name, [sys.executable, "-m", *arguments], environment)

    def _run(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        """Run a command to its end, with its output in a log. Raises StackError with its last line."""
        self._reporter.doing(name)
        began = time.monotonic()
        log = self.layout.log(name)
        with log.open("wb") as output:
            try:
                done = subprocess.run(
                    command,
                    env=dict(os.environ) | environment | {orphans.MARK: str(self.layout.folder)},
                    cwd=PROJECT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=STEP_TIMEOUT_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise StackError(f"{name} took longer than {STEP_TIMEOUT_SECONDS} s", f"read {log}") from None
        if done.returncode != 0:
            raise StackError(f"{name} failed: {last_line(log)}", f"read {log}")
        self._reporter.done(f"{name} ({time.monotonic() - began:.1f} s)")

    def _start_all(self, programs: Sequence[Program]) -> None:
        for program in programs:
            self.supervisor.start_process(program.name)
        for program in programs:
            self._wait(program)

    def _wait(self, program: Program) -> None:
        """Until the program is ready. Raises StackError if it keeps dying or takes too long."""
        began = time.monotonic()
        log = self.layout.log(program.name)
        while True:
            self._reporter.doing(f"waiting for {program.name}")
            state = self.supervisor.states()[program.name].state
            if state in ("starting", "running") and program.is_ready():
                break
            waited = time.monotonic() - began
            past = self.supervisor.ends().get(program.name, [])
            if len(past) >= REFUSALS and (why := end_reason(log, past[-1])).refused:
                raise StackError(
                    f"{program.name} {WORDS['refused']}: {why.text}", f"read `electrored logs {program.name}`"
                )
            if state == "fatal" or len(past) >= DEATHS:
                reason = end_reason(log, past[-1]).text if past else last_line(log)
                raise StackError(
                    f"{program.name} keeps dying: {reason}", f"read `electrored logs {program.name}`"
                )
            if waited > READY_TIMEOUT_SECONDS:
                raise StackError(
                    f"{program.name} was not ready after {waited:.0f} s: {last_line(log)}",
                    f"read `electrored logs {program.name}`",
                )
            time.sleep(0.1)
        self._reporter.done(f"{program.name} ({time.monotonic() - began:.1f} s)")

    def _wait_for_result(self, started_at: datetime) -> None:
        """The probe: wait for a watermark newer than this start, which passes every part of the flow."""
        began = time.monotonic()
        monitor = Monitor(self.platform, self.supervisor)
        looked_at, waits = 0.0, ""
        while True:
            if time.monotonic() > looked_at + LOOK_SECONDS:
                waits = _what_waits(monitor.rows())
                looked_at = time.monotonic()
            self._reporter.doing(f"probe: a fresh watermark through capture, Kafka, workers and sink{waits}")
            newest = self.platform.watermark()
            if newest is not None and newest > started_at:
                break
            if time.monotonic() - began > PROBE_TIMEOUT_SECONDS:
                raise StackError(
                    f"no fresh watermark after {PROBE_TIMEOUT_SECONDS:.0f} s; the newest one is {newest}{waits}",
                    "see `electrored logs capture` and the workers' logs",
                )
            time.sleep(0.2)
        self._reporter.done(f"a fresh watermark came through ({time.monotonic() - began:.1f} s)")
        self._reporter.done(f"results: {self.platform.api_url}/docs")

    def _start_dagster(self) -> None:
        home = self.layout.dagster_home
        link = home / "dagster.yaml"
        link.unlink(missing_ok=True)
        link.symlink_to(PROJECT / "dagster.yaml")
        environment = self.platform.dagster_environment
        # Migrated before the start: processes that start in parallel on an empty database would collide.
        version = importlib.metadata.version("dagster")
        noted = home / "migrated"
        if not noted.exists() or noted.read_text() != version or "dagster" in self.platform.given:
            self._run("dagster-migrate", [script("dagster"), "instance", "migrate"], environment)
            noted.write_text(version)
        self._start_all(self.platform.dagster())


def _what_waits(rows: Sequence[Row]) -> str:
    """What the probe waits for, as the processes report it. Raises StackError where waiting is of no use."""
    for row in rows:
        tries = {"refused": REFUSALS, "dying": DEATHS}.get(row.state)
        if tries is not None and row.restarts >= tries:
            raise StackError(
                f"{row.name} {WORDS[row.state]}: {row.problem}", f"read `electrored logs {row.name}`"
            )
    return "".join(f"; {row.name} {WORDS[row.state]}: {row.problem}" for row in rows if row.problem)


def _unreachable(name: str) -> StackError:
    variable = {
        "kafka": "ELECTRORED_KAFKA_BOOTSTRAP",
        "registry": "ELECTRORED_SCHEMA_REGISTRY_URL",
    }.get(name, f"ELECTRORED_{name.upper()}_DB_URL")
    return StackError(
        f"{variable} is set, and nothing answers there", "correct it, or unset it to have one started"
    )
