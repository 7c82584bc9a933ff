"""`make bench`: measures everything in one run, and prints each figure beside the target of the design.

Nothing else should be busy on the machine. It starts what it needs, on ports of its own, and takes some 20 minutes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import (
    api,
    beside,
    capture,
    csv_files,
    engine,
    kills,
    latency,
    pipelines,
    platform,
    replay,
    rest,
    scale,
    sink,
)
from benchmarks.figures import Figure, table
from contracts.settings import LogSettings
from observability import logs


class What(StrEnum):
    """What can be measured, in the order in which it is."""

    ENGINE = "engine"
    PIPELINES = "pipelines"
    CAPTURE = "capture"
    CSV = "csv"
    REPLAY = "replay"
    SCALE = "scale"
    SINK = "sink"
    REST = "rest"
    LATENCY = "latency"
    API = "api"
    KILLS = "kills"


Measure = Callable[..., list[Figure]]
# Each on servers of its own.
PARTS: Mapping[What, Measure] = {
    What.ENGINE: engine.figures,
    What.PIPELINES: pipelines.figures,
    What.CAPTURE: capture.figures,
    What.CSV: csv_files.figures,
    What.REPLAY: replay.figures,
    What.SCALE: scale.figures,
    What.SINK: sink.figures,
}
# These need the whole platform, and share one: at rest before any load, the API when there is something to answer,
# kills before events that no table has, a replay beside live traffic last, because it fills the log with those.
ON_A_PLATFORM: Mapping[What, Measure] = {
    What.REST: rest.measure,
    What.LATENCY: latency.measure,
    What.API: api.measure,
    What.KILLS: kills.measure,
    What.REPLAY: beside.measure,
}


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
    failed: list[What] = []

    @contextmanager
    def measuring(*what: What) -> Iterator[None]:
        """A failure is printed and does not stop the others."""
        console.print(f"measuring {', '.join(what)}")
        try:
            yield
        except Exception:
            console.print(traceback.format_exc(), markup=False)
            failed.extend(what)

    for part in PARTS:
        if part in wanted:
            with measuring(part):
                figures += PARTS[part]()
    on_a_platform = [part for part in ON_A_PLATFORM if part in wanted]
    if on_a_platform:
        with measuring(*on_a_platform), platform.running() as environment:
            for part in on_a_platform:
                with measuring(part):
                    platform.caught_up(environment)
                    figures += ON_A_PLATFORM[part](environment)
    if as_json:
        sys.stdout.write(json.dumps([dataclasses.asdict(figure) for figure in figures], indent=2) + "\n")
    else:
        Console().print(table(figures, machine))
    raise typer.Exit(1 if failed else 0)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # As Ctrl-C: the context managers stop what was started.
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
