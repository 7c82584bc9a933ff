"""The state of a stack: one row for each process, from the supervisor and from the process's own metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from stack import probes
from stack.ends import End, EndReason, end_reason
from stack.programs import Platform, Program
from stack.supervisor import State, Supervisor, SupervisorGone

# Ended that often in so short a time, and not alive for longer than before: it keeps dying.
DEATHS = 3
DEATHS_SECONDS = 600
JUST_NOW_SECONDS = 30
# A process counts as ready once it has outlived its last life twice over, or lived this long.
PROVEN_SECONDS = 60
# A wait for a restarting server takes as long; a longer one is shown.
WAIT_SECONDS = 3
# The readiness check of a process without metrics runs no more often than this.
PROBE_SECONDS = 5

# Of a state with a problem, the text between the name and the problem.
WORDS = {
    "dying": "keeps dying",
    "refused": "refuses to go on",
    "waiting": "waits",
    "stalled": "stands still",
    "silent": "does not answer",
}
# The same of what a process itself reports, by its kind.
KINDS = {"stall": "stands still", "wait": "waits", "hint": "notes"}


@dataclass(frozen=True)
class Row:
    """One process. `state` is ready, waiting, stalled, silent, starting, refused, dying, stopping or stopped.

    `problem`: what it waits for or where it is stalled and since when, that it does not answer, or why it ended.
    `besides`: its other waits, and its hints, which do not count against it.
    """

    name: str
    state: str
    pid: int | None
    restarts: int
    lag: float | None
    lag_bytes: float | None
    events_per_second: float | None
    address: str
    problem: str
    besides: tuple[str, ...] = ()


class Monitor:
    """Repeated snapshots; rates are those between two of them."""

    def __init__(self, platform: Platform, supervisor: Supervisor) -> None:
        self._platform, self._supervisor = platform, supervisor
        self._programs = platform.all()
        self._flows: dict[str, probes.Flow] = {}
        self._probed: dict[str, tuple[float, bool]] = {}

    def rows(self) -> list[Row]:
        """Raises SupervisorGone."""
        states = self._supervisor.states()
        ends = self._supervisor.ends()
        there = [program for program in self._programs if program.name in states]
        # In parallel: each process that hangs costs a timeout.
        with ThreadPoolExecutor(len(there) or 1) as threads:
            return list(
                threads.map(
                    lambda program: self._row(program, states[program.name], ends.get(program.name, [])),
                    there,
                )
            )

    def _row(self, program: Program, state: State, ends: Sequence[End]) -> Row:
        why = end_reason(self._platform.layout.log(program.name), ends[-1]) if ends else None
        shown, problem, besides, flow = _shown(state, ends, why), "", [], None
        if shown in ("dying", "refused"):
            problem = why.text if why else state.problem
        elif shown == "ready" and _is_frozen(state.pid):
            shown = "silent"
            problem = f"a signal (SIGSTOP) froze process {state.pid}; `kill -CONT {state.pid}` lets it go on"
        elif shown == "ready":
            flow = probes.flow(program.metrics_port) if program.metrics_port else None
            shown, problem = self._answered(program, state, flow)
            waits = _lasting(flow)
            besides = [_phrase(wait) for wait in (waits if shown == "ready" else waits[1:])]
        return Row(
            program.name,
            shown,
            state.pid or None,
            len(ends),
            flow.lag if flow else None,
            flow.lag_bytes if flow else None,
            self._rate(program.name, flow),
            program.address,
            problem,
            tuple(besides),
        )

    def _answered(self, program: Program, state: State, flow: probes.Flow | None) -> tuple[str, str]:
        """State and problem of a process that runs."""
        if flow is not None:
            worst = next(iter(_lasting(flow)), None)
            if worst is None or worst["kind"] == "hint":
                return "ready", ""
            return "stalled" if worst["kind"] == "stall" else "waiting", _sentence(worst)
        if not program.metrics_port and self._is_ready(program):
            return "ready", ""
        if _age(state) < JUST_NOW_SECONDS:
            return "starting", ""
        where = f"no answer on its metrics port {program.metrics_port}"
        return (
            "silent",
            where if program.metrics_port else "it runs, and is not ready for what it is there for",
        )

    def _is_ready(self, program: Program) -> bool:
        asked_at, ready = self._probed.get(program.name, (0.0, False))
        if time.monotonic() > asked_at + PROBE_SECONDS:
            ready = program.is_ready()
            self._probed[program.name] = time.monotonic(), ready
        return ready

    def _rate(self, name: str, flow: probes.Flow | None) -> float | None:
        before = self._flows.pop(name, None)
        if flow is None:
            return None
        self._flows[name] = flow
        if before is None or before.events is None or flow.events is None or flow.events < before.events:
            return None
        return (flow.events - before.events) / max(flow.read_at - before.read_at, 1e-3)


def _shown(state: State, ends: Sequence[End], why: EndReason | None) -> str:
    """The state by supervisord alone; the process itself may still not answer."""
    refused = why is not None and why.refused
    match state.state:
        case "running":
            # A process that was only waiting for its servers, or was mended, outlives its earlier lives.
            if not ends or _age(state) > min(PROVEN_SECONDS, 2 * ends[-1].lived):
                return "ready"
            return "refused" if refused else "dying" if _keeps_dying(ends) else "ready"
        case "starting":
            return "refused" if refused else "dying" if _keeps_dying(ends) else "starting"
        case "backoff" | "fatal":
            return "refused" if refused else "dying"
        case "stopping":
            return "stopping"
        case _:
            return "stopped"


def _lasting(flow: probes.Flow | None) -> list[dict[str, Any]]:
    """Waits that are longer than a server's restart, the most serious first as the process reports them."""
    waits = flow.waits if flow else []
    return [wait for wait in waits if time.time() - wait["since"] > WAIT_SECONDS]


def _sentence(wait: dict[str, Any]) -> str:
    return f"since {datetime.fromtimestamp(wait['since'], UTC):%Y-%m-%d %H:%M:%S}Z: {wait['detail']}"


def _phrase(wait: dict[str, Any]) -> str:
    return f"{KINDS[wait['kind']]}: {_sentence(wait)}"


def _keeps_dying(ends: Sequence[End]) -> bool:
    return len(ends) >= DEATHS and time.time() - ends[-DEATHS].at < DEATHS_SECONDS


def _is_frozen(pid: int) -> bool:
    """Whether a signal stopped it; the only check of processes without metrics, the simulators."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def _age(state: State) -> float:
    return time.time() - state.started_at


def snapshot(platform: Platform, supervisor: Supervisor) -> dict[str, Any]:
    """The whole state as plain values, for `status --json`; rates are over one second."""
    monitor = Monitor(platform, supervisor)
    try:
        monitor.rows()
        time.sleep(1)
        rows = monitor.rows()
    except SupervisorGone:
        rows = []
    newest = platform.watermark() if rows else None
    return {
        "state_dir": str(platform.layout.folder),
        "up": bool(rows) and all(row.state == "ready" for row in rows),
        "watermark": newest.isoformat() if newest else None,
        "processes": [asdict(row) for row in rows],
    }
