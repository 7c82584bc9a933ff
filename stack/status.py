"""How a stack is now: one row for each process, by the supervisor and by what the process itself says."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from stack import probes
from stack.programs import Platform, Program
from stack.supervisor import State, Supervisor, SupervisorGone, last_line

# Restarted that often, and the last time just now: it keeps dying, whatever it does between its deaths.
DEATHS = 3
JUST_NOW_SECONDS = 30
# A server that restarts is waited for as long; what lasts longer is shown.
WAIT_SECONDS = 3


@dataclass(frozen=True)
class Row:
    """One process. `state` is ready, waiting, silent, starting, dying, stopping or stopped.

    `problem`: what it waits for and since when, that it does not answer, or its last words if it is dying.
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


class Monitor:
    """Asks again and again; rates are those between two asks."""

    def __init__(self, platform: Platform, supervisor: Supervisor) -> None:
        self._platform, self._supervisor = platform, supervisor
        self._programs = platform.all()
        self._flows: dict[str, probes.Flow] = {}

    def rows(self) -> list[Row]:
        """Raises SupervisorGone."""
        states = self._supervisor.states()
        restarts = self._supervisor.restarts()
        return [
            self._row(program, states[program.name], restarts.get(program.name, 0))
            for program in self._programs
            if program.name in states
        ]

    def _row(self, program: Program, state: State, restarts: int) -> Row:
        shown, problem = _shown(state, restarts), ""
        flow = probes.flow(program.metrics_port) if shown == "ready" and program.metrics_port else None
        if shown == "dying":
            problem = last_line(self._platform.layout.log(program.name))
        elif shown == "ready" and program.metrics_port and flow is None:
            if _is_fresh(state):
                shown = "starting"
            else:
                shown, problem = "silent", f"no answer on its metrics port {program.metrics_port}"
        elif flow and (wait := next(iter(flow.waits), None)) and time.time() - wait["since"] > WAIT_SECONDS:
            since = datetime.fromtimestamp(wait["since"], UTC)
            shown, problem = "waiting", f"since {since:%Y-%m-%d %H:%M:%S}Z: {wait['detail']}"
        return Row(
            program.name,
            shown,
            state.pid or None,
            restarts,
            flow.lag if flow else None,
            flow.lag_bytes if flow else None,
            self._rate(program.name, flow),
            program.address,
            problem,
        )

    def _rate(self, name: str, flow: probes.Flow | None) -> float | None:
        before = self._flows.pop(name, None)
        if flow is None:
            return None
        self._flows[name] = flow
        if before is None or before.events is None or flow.events is None or flow.events < before.events:
            return None
        return (flow.events - before.events) / max(flow.read_at - before.read_at, 1e-3)


def _shown(state: State, restarts: int) -> str:
    match state.state:
        case "running":
            return "dying" if restarts >= DEATHS and _is_fresh(state) else "ready"
        case "starting":
            return "dying" if restarts >= DEATHS else "starting"
        case "backoff" | "fatal":
            return "dying"
        case "stopping":
            return "stopping"
        case _:
            return "stopped"


def _is_fresh(state: State) -> bool:
    return time.time() - state.started_at < JUST_NOW_SECONDS


def snapshot(platform: Platform, supervisor: Supervisor) -> dict[str, Any]:
    """The whole state as plain values, for `status --json`; rates are measured over a second."""
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
