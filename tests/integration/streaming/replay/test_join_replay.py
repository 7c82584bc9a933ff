"""A replay of the join: partitions of two inputs have one numbering, in targets, barriers and committed offsets."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from contracts.settings import ResultsDbSettings
from contracts.tables import active_generations, joined_sales
from contracts.topics import DEAD_LETTERS, LATE_EVENTS, SOURCE_POSITIONS
from kafka_client import clients as connect
from streaming import pipelines
from streaming.generations import supervisor
from streaming.generations.catalog import Generation
from streaming.replay import barrier as coordinator
from streaming.replay import build as building
from streaming.replay import difference, promotion
from streaming.replay.request import Request
from streaming.sink import postgres
from tests.support import threads
from tests.support.join_harness import JoinHarness, payment_facts
from tests.support.join_oracle import oracle, sale_facts
from tests.support.live_harness import patiently_held
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak


@pytest.fixture
def followed(
    join: JoinHarness, results_db: ResultsDbSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[JoinHarness]:
    """With a worker and a sink that follow the table of generations, in threads."""
    connect.ensure_topics(join.kafka, [SOURCE_POSITIONS, LATE_EVENTS, DEAD_LETTERS])
    monkeypatch.setitem(pipelines.CURRENT, join.pipeline.name, 1)
    monkeypatch.setattr(coordinator, "LOCKED_SECONDS", 4.0)
    # These follow one generation only.
    join.stop.set()
    for thread in join.threads:
        thread.join()
    with threads.running(
        lambda stop: supervisor.run(join.kafka, results_db, join.pipeline.name, 0, tmp_path / "live", stop),
        lambda stop: postgres.run(join.kafka, results_db, stop),
    ):
        yield join
    # A worker has its process to itself, and turns the collector off.
    gc.unfreeze()
    gc.enable()


def rows(join: JoinHarness, number: int) -> dict[str, Any]:
    of = joined_sales.c
    with join.engine.connect() as connection:
        wanted = select(joined_sales).where(of.generation == number, of.sales_count != 0)
        found = connection.execute(wanted).mappings().all()
    answers: dict[str, Any] = {}
    for row in found:
        sales, _, _ = answers.setdefault(
            row["sale_id"], ({}, payment_facts(row["payments"]), row["ambiguous"])
        )
        sales[row["source"]] = (sale_facts(row), row["status"])
    return answers


def settled(join: JoinHarness, number: int) -> None:
    expected = oracle(join.sales, join.payments)
    wait_until(lambda: rows(join, number) == expected, what=f"the join in rows of g{number}")


def build(join: JoinHarness, folder: Path) -> Generation:
    request = Request(join.pipeline.name, "a test", "test")
    generation = building.begin(join.kafka, join.engine, request)
    for pieces in building.slices(generation):
        for piece in pieces:
            building.run_slice(
                join.kafka, join.engine, generation, piece, folder, share=1.0, stop=threading.Event()
            )
    return building.finish(join.engine, generation)


def test_a_replay_of_two_inputs_is_held_at_one_position_of_both_compared_and_promoted(
    followed: JoinHarness, tmp_path: Path
) -> None:
    join, name = followed, followed.pipeline.name
    join.feed(800)
    candidate = build(join, tmp_path / "slices")
    join.feed(200)
    for number in (1, 2):
        settled(join, number)
    places = list(range(sum(candidate.topics[each.source.name].partitions for each in join.pipeline.inputs)))
    assert sorted(candidate.target_offsets) == places
    at_rest = oracle(join.sales, join.payments)
    with patiently_held(join.kafka, join.engine, name, (1, 2), 0) as barrier:
        assert sorted(barrier.targets) == places
        join.feed(200)
        with join.engine.connect() as connection:
            barrier.check(connection)
        assert rows(join, 1) == rows(join, 2) == at_rest
    # Before they have settled: at whatever position they meet, nothing differs.
    found = difference.take(join.kafka, join.engine, name, 2, hold=patiently_held)
    assert found.is_empty
    assert found.compared > 300
    assert sum(found.targets.values()) > sum(barrier.targets.values())
    promotion.promote(
        join.kafka,
        join.engine,
        name,
        2,
        fingerprint=found.fingerprint,
        approved_by="test",
        hold=patiently_held,
    )
    with join.engine.connect() as connection:
        assert connection.scalar(select(active_generations.c.generation)) == 2
    join.feed(100)
    for number in (1, 2):
        settled(join, number)
