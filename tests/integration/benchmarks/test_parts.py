"""Each part that `make bench` measures, over few events: figures come out, none is an error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from benchmarks import capture, csv_files, engine, join, replay, scale, sink
from benchmarks.figures import Figure

pytestmark = pytest.mark.soak


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param(partial(engine.figures, events=400_000, rounds=1), id="engine"),
        pytest.param(partial(join.figures, sales=100_000), id="join"),
        pytest.param(partial(capture.figures, rows=5_000, runs=1), id="capture"),
        pytest.param(partial(csv_files.figures, rows=5_000), id="csv"),
        pytest.param(partial(replay.figures, sizes=(20_000,)), id="replay"),
        pytest.param(partial(scale.figures, events=1_600_000), id="scale"),
        pytest.param(partial(sink.figures, rows=40_000), id="sink"),
    ],
)
def test_a_small_run_measures(figures: Callable[[], list[Figure]]) -> None:
    measured = figures()
    assert measured
    # A share of memory or of time may be 0 in so small a run; a rate is not.
    assert all(figure.value > 0 for figure in measured if figure.unit.endswith("/s"))
    assert all(figure.value >= 0 for figure in measured)
