"""Each part that `make bench` measures, over few events: figures come out, none is an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from benchmarks import latency, platform
from benchmarks.__main__ import ON_A_PLATFORM, PARTS, What
from benchmarks.figures import Figure

pytestmark = pytest.mark.soak

# A load that any machine takes: what is tested is that it is measured.
LOAD = latency.Row("100 sales/s", 100, 50.0, 200.0)
SMALL: Mapping[What, Mapping[str, Any]] = {
    What.ENGINE: {"events": 400_000, "rounds": 1},
    What.PIPELINES: {"sales": 400_000},
    What.CAPTURE: {"rows": 5_000, "runs": 1},
    What.CSV: {"rows": 5_000},
    What.REPLAY: {"sizes": (20_000,)},
    What.SCALE: {"events": 1_600_000},
    What.SINK: {"rows": 40_000},
    What.REST: {"settle_seconds": 1, "seconds": 2},
    What.LATENCY: {"loads": (LOAD,), "idle_probes": 5, "seconds": 5},
    What.API: {"seconds": 2},
    What.KILLS: {},
}


@pytest.mark.parametrize("part", PARTS)
def test_a_small_run_measures(part: What) -> None:
    assert_measured(PARTS[part](**SMALL[part]))


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    with platform.running() as environment:
        yield environment


# But for the replay beside live traffic, which fills the log with a history first.
@pytest.mark.parametrize("part", [part for part in ON_A_PLATFORM if part is not What.REPLAY])
def test_a_small_run_measures_a_platform(environment: Mapping[str, str], part: What) -> None:
    platform.caught_up(environment)
    assert_measured(ON_A_PLATFORM[part](environment, **SMALL[part]))


def assert_measured(figures: list[Figure]) -> None:
    assert figures
    measured = [(figure, figure.value) for figure in figures if figure.value is not None]
    # What a machine lacks is named.
    assert all(figure.missing for figure in figures if figure.value is None)
    # A share of memory or of time may be 0 in so small a run; a rate is not.
    assert all(value > 0 for figure, value in measured if figure.unit.endswith("/s"))
    assert all(value >= 0 for _, value in measured)
