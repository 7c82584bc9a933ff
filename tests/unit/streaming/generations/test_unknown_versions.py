"""A generation of a version that this code lacks is left to others, and shown as a wait while it is there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from contracts.topics import TOP_SALES_BY_CITY
from kafka_client.errors import Fatal
from observability.waits import WAITS
from streaming.engine.pipeline import Parameters
from streaming.generations import supervisor
from streaming.generations.catalog import Generation
from streaming.pipelines import PIPELINES

PIPELINE = TOP_SALES_BY_CITY.name
VERSION = max(version for name, version in PIPELINES if name == PIPELINE)


def generation(number: int, version: int, state: str) -> Generation:
    parameters = Parameters("UTC", timedelta(hours=1), "1-day")
    return Generation(PIPELINE, number, version, state, parameters, {}, {})


def test_a_candidate_that_needs_another_release_is_a_wait_until_it_is_gone() -> None:
    active = generation(1, VERSION, "active")
    candidate, standby = generation(2, VERSION + 1, "candidate"), generation(3, VERSION + 2, "standby")
    logged: set[int] = set()
    assert supervisor._known([active, candidate, standby], logged) == [active]
    (wait,) = WAITS.current()
    assert (wait.on, wait.kind) == ("version", "wait")
    assert wait.detail == (
        f"{PIPELINE}.g2 needs version {VERSION + 1} of {PIPELINE}, which this code does not have; "
        f"{PIPELINE}.g3 needs version {VERSION + 2} of {PIPELINE}, which this code does not have"
    )
    assert logged == {2, 3}
    assert supervisor._known([active, standby], logged) == [active]
    assert "g2" not in WAITS.current()[0].detail
    assert supervisor._known([active], logged) == [active]
    assert WAITS.current() == []


def test_an_active_one_that_needs_another_release_is_an_end() -> None:
    with pytest.raises(Fatal, match=r"g1 needs version"):
        supervisor._known([generation(1, VERSION + 1, "active")], set())
