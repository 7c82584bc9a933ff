"""`make bench`: measures everything in one run, and prints each figure beside the target of the design.

Nothing else should be busy on the machine. It starts what it needs, on ports of its own, and takes some minutes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from enum import StrEnum
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import api, beside, capture, csv_files, engine, join, latency, platform, replay, scale, sink
from benchmarks.figures import Figure, table
from contracts.settings import LogSettings
from observability import logs


class What(StrEnum):
    """What can be measured, in the order in which it is."""

    ENGINE = "engine"
    JOIN = "join"
    CAPTURE = "capture"
    CSV = "csv"
    REPLAY = "replay"
    SCALE = "scale"
    SINK = "sink"
    LATENCY = "latency"
    API = "api"


def main(
    only: Annotated[
        list[What] | None, typer.Argument(help="What to measure; everything if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure, and print each figure beside its target. Exit code 1 if something could not be measured."""
    signal.signal(signal.SIGTERM, _interrupt)
    logs.configure("benchmarks", LogSettings(log_level="WARNING"))
    wanted = set(only or What)
    # Progress and failures on stderr: stdout is for the figures.
    console = Console(stderr=True)
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it began"
    console.print(machine)
    figures: list[Figure] = []
    failed = [step for step in _steps(wanted) if not _measured(step, figures, console)]
    if as_json:
        sys.stdout.write(json.dumps([dataclasses.asdict(figure) for figure in figures], indent=2) + "\n")
    else:
        Console().print(table(figures, machine))
    raise typer.Exit(1 if failed else 0)


def _steps(wanted: set[What]) -> Iterable[Callable[[], list[Figure]]]:
    # Parts first, on servers of their own; then what needs the whole platform, on one.
    if What.ENGINE in wanted:
        yield engine.figures
    if What.JOIN in wanted:
        yield join.figures
    if What.CAPTURE in wanted:
        yield capture.figures
    if What.CSV in wanted:
        yield csv_files.figures
    if What.REPLAY in wanted:
        yield replay.figures
    if What.SCALE in wanted:
        yield scale.figures
    if What.SINK in wanted:
        yield sink.figures
    if wanted & {What.LATENCY, What.API, What.REPLAY}:
        yield lambda: _on_a_platform(wanted)


def _on_a_platform(wanted: set[What]) -> list[Figure]:
    figures: list[Figure] = []
    with platform.running() as environment:
        if What.LATENCY in wanted:
            figures += latency.measure(environment)
        if What.API in wanted:
            # After the load, so that there is something to answer.
            figures += api.measure(environment)
        if What.REPLAY in wanted:
            # Last: it fills the log.
            figures += beside.measure(environment)
    return figures


def _measured(step: Callable[[], list[Figure]], figures: list[Figure], console: Console) -> bool:
    """Add what the step measures; a failure is printed and does not stop the others."""
    try:
        with console.status("measuring"):
            figures += step()
    except Exception:
        console.print(traceback.format_exc(), markup=False)
        return False
    return True


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # As Ctrl-C: the context managers stop what was started.
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
