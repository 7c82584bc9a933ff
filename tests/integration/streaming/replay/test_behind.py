"""A generation that is behind the active one is neither compared nor promoted: live traffic is not held up for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from contracts.tables import sink_positions
from stack.embedded import Embedded
from streaming.replay import difference, promotion
from streaming.replay.errors import Behind
from streaming.replay.snapshot import NEAR
from tests.support.results import DAY, BarrierHold, ResultsFixture, city

PIPELINE = "top-sales-by-city"


@pytest.fixture
def filled(engine: Engine) -> ResultsFixture:
    """Generation 1 is active, generation 2 a candidate that has just as much."""
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "1")])
    filled.write(2, [city("Berlin", "3")])
    for number in (1, 2):
        filled.reached(number, DAY, DAY)
    return filled


def now_at(filled: ResultsFixture, number: int, partition: int, watermark: datetime | None) -> None:
    of = sink_positions.c
    with filled.engine.begin() as connection:
        changed = connection.execute(
            update(sink_positions)
            .where(of.generation == number, of.partition == partition)
            .values(watermark=watermark)
        )
    assert changed.rowcount == 1


@pytest.mark.parametrize("watermark", [None, DAY - NEAR - timedelta(microseconds=1)])
def test_a_generation_that_is_behind_is_not_compared_or_promoted_and_nothing_changes(
    stack: Embedded, filled: ResultsFixture, watermark: datetime | None
) -> None:
    hold = BarrierHold()
    seen = difference.take(stack.kafka, filled.engine, PIPELINE, 2, hold=hold)
    requests: list[Callable[[], object]] = [
        lambda: difference.take(stack.kafka, filled.engine, PIPELINE, 2, hold=hold),
        lambda: promotion.promote(
            stack.kafka,
            filled.engine,
            PIPELINE,
            2,
            fingerprint=seen.fingerprint,
            approved_by="Ada",
            hold=hold,
        ),
    ]
    # One partition of two is enough.
    now_at(filled, 2, 1, watermark)
    before = filled.everything()
    for request in requests:
        with pytest.raises(Behind, match="try again when it has caught up"):
            request()
        assert filled.everything() == before
    assert hold.held == [(1, 2)], "only the first look held anybody"
    now_at(filled, 2, 1, DAY - NEAR)
    (*_, promote) = requests
    promote()
    assert filled.pointer() == (2, 2)
