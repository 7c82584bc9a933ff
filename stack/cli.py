"""The `electrored` command: the whole platform on one machine."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import psutil
import typer
from filelock import FileLock
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.table import Table

from contracts.settings import StackSettings
from stack import commands, display, doctor, orphans, status
from stack.endpoints import GIVEN
from stack.errors import StackError
from stack.layout import Layout, Options
from stack.lifecycle import Stack
from stack.locate import DEFAULT_STATE_DIR, StateDir, layout_in, platform_in
from stack.programs import Platform
from stack.supervisor import Supervisor, SupervisorGone

# `down` waits for a foreground stack to end: every layer may use its whole timeout.
DOWN_TIMEOUT_SECONDS = 120

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def up(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    detach: Annotated[bool, typer.Option("--detach", help="Return when all is ready; it runs on.")] = False,
    simulate: Annotated[bool, typer.Option(help="Let simulated sales happen.")] = True,
    history_days: Annotated[int, typer.Option(min=0, help="Past sales in a new sales table.")] = 30,
    port_offset: Annotated[
        int, typer.Option(min=0, max=50_000, help="Added to every port, for a second stack.")
    ] = 0,
) -> None:
    """Start the platform and show it; Ctrl-C stops it in order."""
    console = display.wide()
    layout = Layout(state_dir)
    layout.create()
    layout.options()
    lock = layout.lock()
    _refuse_if_detached(layout)
    settings = StackSettings()
    options = Options(port_offset, simulate, history_days, detach, _noted(settings), os.getpid())
    lines = display.Lines(console)
    stack = Stack(layout, options, settings, lines)
    layout.note(options)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    began = time.monotonic()
    try:
        with lines.shown():
            stack.start()
        lines.done(f"up after {time.monotonic() - began:.0f} s")
        if detach:
            _print_addresses(console, stack.platform)
        else:
            display.watch(console, status.Monitor(stack.platform, stack.supervisor))
    except KeyboardInterrupt:
        _stop(stack, lines, console)
    except SupervisorGone:
        orphans.end(layout.folder)
        raise StackError(
            "supervisord is gone; what it had started was stopped", "start again: nothing is lost"
        ) from None
    finally:
        lock.release()


@app.command()
def down(state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Stop the platform in order; its state is kept."""
    console = Console()
    layout = layout_in(state_dir)
    options = layout.options()
    lines = display.Lines(console)
    if _ask_owner_to_stop(layout):
        lines.done("stopped")
        return
    lock = layout.lock()
    try:
        if not Supervisor(layout).is_running() and not orphans.find(layout.folder):
            console.print("It is not up.")
            return
        options = options or Options()
        _stop(Stack(layout, options, StackSettings.model_validate(options.given), lines), lines, console)
    finally:
        lock.release()


@app.command("status")
def show_status(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every process; exit code 0 if all are ready."""
    platform = platform_in(state_dir)
    snapshot = status.snapshot(platform, Supervisor(platform.layout))
    if as_json:
        sys.stdout.write(json.dumps(snapshot, indent=2) + "\n")
    elif not snapshot["processes"]:
        Console().print(f"The stack in {platform.layout.folder} is not up. Start it: electrored up")
    else:
        rows = [status.Row(**row) for row in snapshot["processes"]]
        console = display.wide()
        console.print(display.table(rows))
        for line in display.problems(rows):
            console.print(line)
        console.print(f"results are complete up to {snapshot['watermark'] or '(nothing yet)'}")
    raise typer.Exit(0 if snapshot["up"] else 1)


@app.command()
def env(state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    """Print every connection setting as KEY=VALUE, quoted for a shell where that is needed."""
    for name, value in platform_in(state_dir).connection_environment.items():
        sys.stdout.write(f"{name}={shlex.quote(value)}\n")


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="A process, as `status` names it.")],
    state_dir: StateDir = DEFAULT_STATE_DIR,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it is written.")] = False,
) -> None:
    """Print what a process wrote."""
    layout = layout_in(state_dir)
    file = layout.log(name)
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in layout.logs.glob("*.log")))
        raise StackError(f"there is no log of {name}", f"these are there: {known or 'none yet'}")
    if follow:
        # tail follows a rotated log, and reports each rotation on stderr.
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
        os.execvp("tail", ["tail", "-n", "+1", "-F", str(file)])
    with file.open("rb") as source:
        shutil.copyfileobj(source, sys.stdout.buffer)


# Beside the others, not below a name of their own.
app.add_typer(commands.app)


@app.command("doctor")
def show_doctor(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    port_offset: Annotated[
        int, typer.Option(min=0, max=50_000, help="Of the stack that would be started.")
    ] = 0,
) -> None:
    """Check whether this machine has what the platform needs; exit code 0 if so."""
    layout = Layout(state_dir)
    options = layout.options()
    # The folder and passwords of a new stack are created when it starts, not by this command.
    with tempfile.TemporaryDirectory() as unused:
        examined = layout if options else Layout(Path(unused))
        platform = Platform(examined, options or Options(port_offset), StackSettings())
        findings = doctor.examine(layout, platform)
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        shown.add_row("[red]✗[/]" if finding.remedy else "[green]✓[/]", finding.what, finding.result)
        if finding.remedy:
            shown.add_row("", "", f"→ {finding.remedy}")
    display.wide().print(shown)
    raise typer.Exit(1 if any(finding.remedy for finding in findings) else 0)


@app.command()
def reset(
    state_dir: StateDir = DEFAULT_STATE_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all state, the sales of the embedded database included."""
    layout = layout_in(state_dir)
    if layout.options() is None:
        raise StackError(f"{layout.folder} is no state folder", "name the right one with --state-dir")
    lock = layout.lock()
    try:
        if Supervisor(layout).is_running() or orphans.find(layout.folder):
            raise StackError("the stack is up", "stop it first: electrored down")
        if not yes:
            typer.confirm(f"Delete everything in {layout.folder}?", abort=True)
        shutil.rmtree(layout.folder)
    finally:
        lock.release()
    Console().print(f"Deleted {layout.folder}.")


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _stop(stack: Stack, lines: display.Lines, console: Console) -> None:
    # A second Ctrl-C must not leave half of it running.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with lines.shown():
        stack.stop()
    lines.done("stopped")
    console.print(f"State is kept in {stack.layout.folder}.")


def _refuse_if_detached(layout: Layout) -> None:
    """A detached stack that runs is no leftover: it stays."""
    options = layout.options()
    if options is not None and options.detached and Supervisor(layout).is_running():
        raise StackError(
            f"the stack in {layout.folder} is up already",
            "see `electrored status`; end it with `electrored down`, or use another --state-dir",
        )


def _ask_owner_to_stop(layout: Layout) -> bool:
    """Ask the command in the foreground that holds the stack to stop, and wait; false without one."""
    options = layout.options()
    try:
        layout.lock().release()
    except StackError:
        if options is None or not psutil.pid_exists(options.owner_pid):
            raise
    else:
        return False
    os.kill(options.owner_pid, signal.SIGTERM)
    with FileLock(layout.folder / "up.lock", timeout=DOWN_TIMEOUT_SECONDS):
        return True


def _noted(settings: StackSettings) -> dict[str, str]:
    """The given settings, in plain text: other commands may run where they are not set."""
    values = {name: getattr(settings, name) for name in (*GIVEN.values(), "csv_inbox")}
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in values.items()
        if value is not None
    }


def _print_addresses(console: Console, platform: Platform) -> None:
    console.print(f"API      {platform.api_url}/docs\nDagster  {platform.dagster_web_url}", highlight=False)


def main() -> None:
    """The command. A StackError is shown as one line with what to do; anything else is a defect, with its traceback."""
    try:
        app()
    except StackError as error:
        _fail(str(error), error.remedy)
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        _fail(f"the setting ELECTRORED_{name} is wrong: {first['msg']}", "correct it, or unset it")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _fail(
            f"disk full: {error.filename or 'no space is left'}", "make room and start again; nothing is lost"
        )


def _fail(problem: str, remedy: str) -> NoReturn:
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    console.print(f"error: {problem}\n  → {remedy}")
    sys.exit(1)


if __name__ == "__main__":
    main()
