"""Each part that `make bench` measures, over few events: figures come out, none is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest

from benchmarks import (
    api,
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
from benchmarks.figures import Figure

pytestmark = pytest.mark.soak


@pytest.mark.parametrize(
    "figures",
    [
        pytest.param(partial(engine.figures, events=400_000, rounds=1), id="engine"),
        pytest.param(partial(pipelines.figures, sales=400_000), id="pipelines"),
        pytest.param(partial(capture.figures, rows=5_000, runs=1), id="capture"),
        pytest.param(partial(csv_files.figures, rows=5_000), id="csv"),
        pytest.param(partial(replay.figures, sizes=(20_000,)), id="replay"),
        pytest.param(partial(scale.figures, events=1_600_000), id="scale"),
        pytest.param(partial(sink.figures, rows=40_000), id="sink"),
    ],
)
def test_a_small_run_measures(figures: Callable[[], list[Figure]]) -> None:
    assert_measured(figures())


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    with platform.running() as environment:
        yield environment


# A load that any machine takes: what is tested is that it is measured.
LOAD = latency.Row("100 sales/s", 100, 50.0, 200.0)


@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(partial(rest.measure, settle_seconds=1, seconds=2), id="rest"),
        pytest.param(partial(latency.measure, loads=(LOAD,), idle_probes=5, seconds=5), id="latency"),
        pytest.param(partial(api.measure, seconds=2), id="api"),
        pytest.param(kills.measure, id="kills"),
    ],
)
def test_a_small_run_measures_a_platform(
    environment: Mapping[str, str], measure: Callable[[Mapping[str, str]], list[Figure]]
) -> None:
    platform.caught_up(environment)
    assert_measured(measure(environment))


def assert_measured(figures: list[Figure]) -> None:
    assert figures
    measured = [(figure, figure.value) for figure in figures if figure.value is not None]
    # What a machine lacks is named.
    assert all(figure.missing for figure in figures if figure.value is None)
    # A share of memory or of time may be 0 in so small a run; a rate is not.
    assert all(value > 0 for figure, value in measured if figure.unit.endswith("/s"))
    assert all(value >= 0 for _, value in measured)
