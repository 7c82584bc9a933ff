"""Slices side by side: a failure ends the others, and none begins after it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from kafka_client.errors import Fatal
from streaming.replay import local_executor
from streaming.replay.build import Slice

# Of a slice that must not be waited for.
LONG_SECONDS = 60
# The generation and the folder, of which a fake command makes no use.
NOTHING: Any = None


def command(_generation: Any, piece: Slice, *_: Any) -> list[str]:
    """The first slice fails, the next ones take long."""
    program = (
        "import sys; sys.exit('out of order')"
        if piece.partition == 0
        else f"import time; time.sleep({LONG_SECONDS})"
    )
    return [sys.executable, "-c", program]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_slice_that_fails_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(local_executor, "_command", command)
    pieces = [Slice("combine", 0, partition) for partition in range(6)]
    total: Any = SimpleNamespace(note=print)
    began = time.monotonic()
    with pytest.raises(Fatal, match=r"slice combine\.0 failed: out of order"):
        local_executor._side_by_side(NOTHING, pieces, NOTHING, processes, 1.0, total)
    assert time.monotonic() - began < LONG_SECONDS / 2


def test_progress_is_that_of_all_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"events": 3, "offsets": 4, "of_offsets": 4}
    monkeypatch.setattr(
        local_executor, "_command", lambda *_: [sys.executable, "-c", f"print('''{json.dumps(line)}''')"]
    )
    noted: list[tuple[Any, ...]] = []
    total: Any = SimpleNamespace(note=lambda *progress: noted.append(progress))
    pieces = [Slice("merge", None, p) for p in range(3)]
    local_executor._side_by_side(NOTHING, pieces, NOTHING, 2, 1.0, total)
    assert sorted(noted) == [(f"merge.{p}", 3, 4, 4) for p in range(3)]


def test_row_28_a_slice_ends_with_the_replay_that_was_killed() -> None:
    child = (
        "import os, sys, threading; from streaming.replay.local_executor import end_with; stop = threading.Event();"
        "end_with(int(sys.argv[1]), stop); print(os.getpid(), flush=True); stop.wait(60)"
    )
    replay = (
        "import os, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid())])"
    )
    with subprocess.Popen([sys.executable, "-c", replay, child], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    started.wait(LONG_SECONDS / 2)
    # One that begins too late to see its parent has none.
    stop = threading.Event()
    local_executor.end_with(started.pid, stop)
    assert stop.wait(LONG_SECONDS / 2)
