"""Terminal output: lines while the stack starts and stops, then a live table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.status import Status
from rich.table import Table
from rich.text import Text

from stack.status import WORDS, Monitor, Row

REFRESH_SECONDS = 1.0
COLOURS = {
    "ready": "green",
    "waiting": "yellow",
    "silent": "bold red",
    "starting": "yellow",
    "stopping": "yellow",
    "stalled": "bold red",
    "refused": "bold red",
    "dying": "bold red",
    "stopped": "dim",
}


class Lines:
    """A line for every finished step, a spinner for the current one; without a terminal, plain lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None

    @contextmanager
    def shown(self) -> Iterator[Lines]:
        with self._console.status("") as self._status:
            yield self
        self._status = None

    def doing(self, what: str) -> None:
        if self._status is not None:
            self._status.update(what)

    def done(self, what: str) -> None:
        self._console.print(f"[green]✓[/] {what}", highlight=False)


def table(rows: Sequence[Row]) -> Table:
    """One row for each process."""
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("process", "state"):
        shown.add_column(name, no_wrap=True)
    for name in ("pid", "restarts", "lag", "events/s"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("address", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.name,
            Text(row.state, style=COLOURS[row.state]),
            _number(row.pid),
            _number(row.restarts),
            _lag(row),
            _number(row.events_per_second),
            row.address,
        )
    return shown


def problems(rows: Sequence[Row]) -> list[Text]:
    """A line for each problem of a process, and for each of its `besides`."""
    lines = []
    for row in rows:
        phrases = [f"{WORDS[row.state]}: {row.problem}"] if row.problem else []
        lines += [Text(f"{row.name} {one}", COLOURS[row.state]) for one in (*phrases, *row.besides)]
    return lines


def watch(console: Console, monitor: Monitor) -> None:
    """Show the table until interrupted. Raises SupervisorGone if the supervisor ends."""
    hint = Text("Ctrl-C stops everything in order.", style="dim")
    if not console.is_terminal:
        console.print(table(monitor.rows()))
        while True:
            monitor.rows()
            time.sleep(REFRESH_SECONDS)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            rows = monitor.rows()
            live.update(Group(table(rows), *problems(rows), hint), refresh=True)
            time.sleep(REFRESH_SECONDS)


def _lag(row: Row) -> str:
    """The lag of change capture is in bytes of PostgreSQL's WAL, that of the others in events."""
    return f"{_number(row.lag_bytes)} B" if row.lag_bytes is not None else _number(row.lag)


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:,.0f}"


def wide() -> Console:
    """For tables: as wide as the terminal, and where there is none as wide as they need."""
    console = Console()
    return console if console.is_terminal else Console(width=200)
