"""Slices side by side: a failure ends the others, and none begins after it."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from streaming.engine.errors import Fatal
from streaming.replay import running
from streaming.replay.building import Slice

# Of a slice that nobody should wait for.
LONG_SECONDS = 60


def command(_generation: Any, piece: Slice, *_: Any) -> list[str]:
    """The first slice fails, the next ones take long."""
    program = (
        "import sys; sys.exit('out of order')"
        if piece.partition == 0
        else f"import time; time.sleep({LONG_SECONDS})"
    )
    return [sys.executable, "-c", program]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_slice_that_fails_is_told_at_once(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(running, "_command", command)
    pieces = [Slice("combine", 0, partition) for partition in range(6)]
    began = time.monotonic()
    with pytest.raises(Fatal, match=r"slice combine\.0 failed: out of order"):
        running._side_by_side(SimpleNamespace(), pieces, None, processes, 1.0, SimpleNamespace(note=print))  # type: ignore[arg-type]
    assert time.monotonic() - began < LONG_SECONDS / 2


def test_progress_is_that_of_all_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"events": 3, "offsets": 4, "of_offsets": 4}
    monkeypatch.setattr(
        running, "_command", lambda *_: [sys.executable, "-c", f"print('''{json.dumps(said)}''')"]
    )
    noted: list[tuple[Any, ...]] = []
    total = SimpleNamespace(note=lambda *told: noted.append(told))
    running._side_by_side(SimpleNamespace(), [Slice("merge", None, p) for p in range(3)], None, 2, 1.0, total)  # type: ignore[arg-type]
    assert sorted(noted) == [(f"merge.{p}", 3, 4, 4) for p in range(3)]
