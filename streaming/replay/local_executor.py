"""A replay from the command line: slices as processes of their own, some at a time, with their progress.

Dagster does the same with a step for each slice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kafka_client.errors import Fatal
from streaming.generations.catalog import Generation
from streaming.replay.build import Slice, slices

# How soon a slice ends whose replay was killed.
PARENT_SECONDS = 0.5


def run(generation: Generation, state_dir: Path, *, processes: int, share: float, console: Console) -> int:
    """Run every slice of the generation, `processes` at a time; returns how many events were read.

    Raises Fatal with the last stderr line of a slice that failed, after the others were ended; a repeated call resumes.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[events]:>12,} events"),
        TextColumn("{task.fields[rate]:>9,.0f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    events = 0
    with Progress(*columns, console=console) as progress:
        for what, pieces in zip(("events → partials", "partials → totals"), slices(generation), strict=True):
            total = _Total(progress, progress.add_task(what, total=1, events=0, rate=0.0), len(pieces))
            _side_by_side(generation, pieces, state_dir, processes, share, total)
            events = events or total.events
    return events


class _Total:
    """The progress of all slices of a step together."""

    def __init__(self, progress: Progress, task: TaskID, slices: int) -> None:
        self._progress = progress
        self._task = task
        self._slices = slices
        self._done: dict[str, tuple[int, int, int]] = {}
        self._first: dict[str, int] = {}
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def events(self) -> int:
        return sum(done[0] for done in self._done.values())

    def note(self, name: str, events: int, offsets: int, of_offsets: int) -> None:
        with self._lock:
            self._done[name] = events, offsets, of_offsets
            # The rate is of this run alone.
            self._first.setdefault(name, events)
            # Slices that have not begun count as large as the others: keys are spread evenly.
            known = sum(done[2] for done in self._done.values()) or 1
            share = sum(done[1] for done in self._done.values()) / known * len(self._done) / self._slices
            if all(done[1] >= done[2] for done in self._done.values()) and len(self._done) == self._slices:
                share = 1.0
            seconds = max(time.monotonic() - self._began, 0.001)
            rate = (self.events - sum(self._first.values())) / seconds
            self._progress.update(self._task, completed=share, events=self.events, rate=rate)


def _side_by_side(
    generation: Generation,
    pieces: Sequence[Slice],
    state_dir: Path,
    processes: int,
    share: float,
    total: _Total,
) -> None:
    children = _Children()

    def one(piece: Slice) -> None:
        try:
            _one(_command(generation, piece, state_dir, share), piece, children, total.note)
        except BaseException:
            # At once: this thread would take the next slice before the failure is handled.
            children.end()
            raise

    with ThreadPoolExecutor(processes) as threads:
        futures = [threads.submit(one, piece) for piece in pieces]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            children.end()


def end_with(parent: int, stop: threading.Event) -> None:
    """For a child: set `stop` once its parent process has ended."""

    def watch() -> None:
        while os.getppid() == parent and not stop.wait(PARENT_SECONDS):
            pass
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()


class _Children:
    """The processes of running slices. After `end`, by Ctrl-C or a failure, none is started any more."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False
        self._lock = threading.Lock()

    def begin(self, command: list[str]) -> subprocess.Popen[str] | None:
        """Start the process; None after `end`."""
        with self._lock:
            if self._ended:
                return None
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self._running.add(process)
            return process

    def done(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._running.discard(process)

    def end(self) -> None:
        """Terminate all; they commit what they have and end."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


def _one(
    command: list[str], piece: Slice, children: _Children, note: Callable[[str, int, int, int], None]
) -> None:
    process = children.begin(command)
    if process is None:
        return
    with process:
        errors: list[str] = []
        # Read beside stdout, or a full pipe would stop the slice.
        reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
        reader.start()
        try:
            for line in process.stdout or ():
                done = json.loads(line)
                note(str(piece), done["events"], done["offsets"], done["of_offsets"])
            process.wait()
            reader.join()
        finally:
            children.done(process)
    if process.returncode != 0:
        last = errors[-1].strip() if errors else f"exit code {process.returncode}"
        raise Fatal(f"slice {piece} failed: {last}; the same command resumes it")


def _command(generation: Generation, piece: Slice, state_dir: Path, share: float) -> list[str]:
    chosen = [generation.pipeline, str(generation.number), piece.step, str(piece.partition)]
    options = ["--state-dir", str(state_dir), "--share", str(share), "--parent", str(os.getpid())]
    return [sys.executable, "-P", "-m", "streaming", "slice", *chosen, *options]
