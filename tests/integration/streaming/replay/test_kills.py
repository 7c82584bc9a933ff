"""Killed anywhere, a replay goes on where it was, and live traffic passes a barrier whose owner is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from sqlalchemy import func, select

from contracts.tables import barrier_reports, barriers, generations
from kafka_client import clients as connect
from streaming.generations.catalog import load
from streaming.replay.failpoints import VARIABLE
from tests.support.live_harness import LiveHarness, expire
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[4]


def ended(live: LiveHarness, failpoint: str = "", **more: Any) -> int:
    """How the process of a replay or of another call ends."""
    harness = live.harness
    given = {
        "pipeline": harness.name,
        "suffix": harness.suffix,
        "results_url": harness.results_url,
        "folder": str(live.folder / "slices"),
    }
    environment = os.environ | {
        "ELECTRORED_KAFKA_BOOTSTRAP": harness.kafka.kafka_bootstrap,
        "ELECTRORED_SCHEMA_REGISTRY_URL": harness.kafka.schema_registry_url,
        VARIABLE: failpoint,
        "PYTHONPATH": str(ROOT),
    }
    module = "tests.integration.streaming.replay.replay_process"
    command = [sys.executable, "-m", module, json.dumps(given | more)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def states(live: LiveHarness) -> list[tuple[int, str]]:
    of = generations.c
    with live.harness.results.connect() as connection:
        return [tuple(row) for row in connection.execute(select(of.number, of.state).order_by(of.number))]


def committed(live: LiveHarness, step: str) -> dict[int, int]:
    """How far the slices of a step of the replay have come, where they have come anywhere."""
    generation = load(live.harness.results, live.harness.pipeline.name, 2)
    names = generation.names
    topic = {"combine": live.harness.source.name, "merge": names.partials.name}[step]
    places = range(generation.topics[topic].partitions)

    def asked() -> list[dict[int, int]]:
        # A broker answers the first request for a group with an error: no coordinator yet.
        try:
            return [connect.committed_offsets(client, topic, places)]
        except KafkaException:
            return []

    with closing(connect.consumer(live.harness.kafka, names.group_id(step), subscribed=False)) as client:
        (found,) = wait_until(asked, what="answer of the group's coordinator")
        return dict(found)


def test_a_replay_killed_at_every_step_and_in_its_slices_ends_as_if_it_never_was(live: LiveHarness) -> None:
    live.harness.feed(6000)
    for failpoint, left in (
        ("replay.topics", [(1, "active")]),
        ("replay.begun", [(1, "active"), (2, "building")]),
    ):
        assert ended(live, failpoint) == -signal.SIGKILL
        assert states(live) == left
    target = load(live.harness.results, live.harness.pipeline.name, 2).target_offsets[0]
    for step, transactions, is_within_next in (
        ("combine", 3, True),
        ("combine", 3, False),
        ("merge", 2, True),
    ):
        death = {"step": step, "transactions": transactions, "is_within_next": is_within_next}
        before = committed(live, step)
        assert ended(live, death=death) == -signal.SIGKILL
        after = committed(live, step)
        assert after.items() != before.items()
        assert all(after[partition] >= offset for partition, offset in before.items())
        if step == "combine":
            assert 0 < after[0] < target, "in the middle of a slice"
        assert states(live) == [(1, "active"), (2, "building")]
    assert ended(live, "replay.finished") == -signal.SIGKILL
    assert states(live) == [(1, "active"), (2, "candidate")]
    with live.running():
        live.settled(1)
        live.settled(2)
        live.harness.feed(300)
        live.settled(2)
        assert live.compare(2).is_empty


def barriers_of(live: LiveHarness) -> list[str]:
    with live.harness.results.connect() as connection:
        return list(connection.scalars(select(barriers.c.state).order_by(barriers.c.id)))


def at_rest(live: LiveHarness) -> bool:
    """Whether combine has reported its positions at the newest barrier; a worker polls for one twice a second."""
    of, harness = barrier_reports.c, live.harness
    newest = select(func.max(barriers.c.id)).scalar_subquery()
    wanted = select(func.count()).where(of.barrier == newest, of.step == "combine")
    with harness.results.connect() as connection:
        return connection.scalar(wanted) == harness.source.partitions


def test_a_coordinator_killed_before_everybody_was_there_holds_live_traffic_no_longer_than_its_time(
    live: LiveHarness,
) -> None:
    harness = live.harness
    past: list[str] = []
    harness.feed(100)
    with live.running():
        live.settled(1)
        for state in ("requested", "targeted"):
            assert ended(live, f"barrier.{state}", holding=[1]) == -signal.SIGKILL
            assert barriers_of(live) == [*past, state]
            wait_until(lambda: at_rest(live))
            harness.feed(50)
            live.rests(1)
            expire(harness.results)
            live.settled(1)
            past.append("expired")
            assert barriers_of(live) == past
