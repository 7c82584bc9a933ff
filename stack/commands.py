"""Commands of `electrored` that other packages implement: the API, dead letters, files, generations.

Such a command is replaced by the program (exec), so that signals reach it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from stack import display, lineage
from stack.locate import DEFAULT_STATE_DIR, StateDir, running_in
from stack.programs import PROJECT

app = typer.Typer()


@app.command("lineage")
def show_lineage(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A table, view, topic or folder, and perhaps its column: top_sales_by_city.total"
        ),
    ],
    downstream: Annotated[
        bool, typer.Option("--downstream/--upstream", help="What becomes of it, or what it comes from.")
    ] = False,
    deciding: Annotated[
        bool, typer.Option("--all", help="Also what filters, joins, groups or orders it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; always all.")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Show what a column is made of, job by job, or what becomes of it."""
    direction = "downstream" if downstream else "upstream"
    answer = lineage.ask(running_in(state_dir).api_url, dataset, direction)
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        display.wide().print(lineage.tree(answer, deciding=deciding), highlight=False)


@app.command("dead-letters")
def show_dead_letters(
    count: Annotated[int, typer.Option("-n", min=1, help="So many at most.")] = 20,
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Show the newest of what could not be taken, where it came from, and why."""
    environment = running_in(state_dir).replay_environment
    _become(["-m", "observability.letters", "-n", str(count)], environment, PROJECT)


def _become(arguments: list[str], environment: Mapping[str, str], folder: Path | None = None) -> NoReturn:
    """Replace this process by Python, with more environment, in the folder if one is given."""
    sys.stdout.flush()
    if folder is not None:
        os.chdir(folder)
    os.execve(sys.executable, [sys.executable, *arguments], dict(os.environ) | dict(environment))


csv = typer.Typer(no_args_is_help=True)
app.add_typer(csv, name="csv", help="Files of sales: look at one before it is taken, take one back.")


@csv.command("check")
def csv_check(
    file: Annotated[Path, typer.Argument(help="The file, wherever it is.")],
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Show which rows of a file would be accepted, and why the others not; exit code 1 if any would be refused."""
    _run_source(running_in(state_dir).csv_environment, "csv", "check", str(file.absolute()))


@csv.command("retract")
def csv_retract(
    file: Annotated[
        str, typer.Argument(help="The file, or the name that it was taken under, or its SHA-256.")
    ],
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Take back, by reversals, the sales of a file that still count; what was corrected since is left."""
    named = str(Path(file).absolute()) if Path(file).is_file() else file
    _run_source(running_in(state_dir).csv_environment, "csv", "retract", named)


soap = typer.Typer(no_args_is_help=True)
app.add_typer(soap, name="soap", help="Payment confirmations: ask the service now, or once more.")


@soap.command("poll")
def soap_poll(
    begin: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="CURSOR", help="Read again what stands behind this cursor; '' is the beginning."
        ),
    ] = None,
    set_aside: Annotated[
        bool,
        typer.Option("--set-aside", help="Take pages of which most records are bad; these are dead letters."),
    ] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
) -> None:
    """Read what the payment service confirmed; what comes again counts once. Takes over from a poll under way."""
    asked = [] if begin is None else ["--from", begin]
    asked += ["--set-aside"] if set_aside else []
    _run_source(running_in(state_dir).poll_environment, "soap", "poll", *asked)


def _run_source(settings: dict[str, str], *arguments: str) -> NoReturn:
    _become(["-m", "sources", *arguments], settings, PROJECT)


# Their help is defined there; `prog_name` is the name of this command.
STREAMING = "from streaming.__main__ import app; app(prog_name='electrored')"
GENERATIONS = {
    "generations": "List the generations of every pipeline.",
    "replay": "Compute a pipeline anew, beside the generation that is active.",
    "diff": "Show where a generation differs from the active one.",
    "promote": "Make a generation the one that readers see.",
    "rollback": "Make the generation before it the one that readers see again.",
    "retire": "Take a generation away: its rows, topics and positions.",
}


def _on_generations(context: typer.Context, state_dir: StateDir = DEFAULT_STATE_DIR) -> None:
    arguments = [str(context.info_name), *context.args]
    # Not in the project's folder: paths of files are relative to the caller's. `-P`: its modules are not imported.
    environment = {"PYTHONPATH": str(PROJECT)}
    if "--help" in arguments:
        Console().print(
            f"--state-dir names the stack that is asked; {DEFAULT_STATE_DIR} if left out.", highlight=False
        )
    else:
        environment |= running_in(state_dir).replay_environment
    _become(["-P", "-c", STREAMING, *arguments], environment)


for _name, _help in GENERATIONS.items():
    app.command(
        _name,
        help=_help,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_on_generations)
