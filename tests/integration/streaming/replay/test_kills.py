"""A replay that is killed anywhere goes on where it was, and the same oracle holds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from sqlalchemy import select

from contracts.tables import generations
from streaming.replay.failpoints import VARIABLE
from tests.integration.streaming.replay.test_replay import Live, live

__all__ = ["live"]

ROOT = Path(__file__).parents[4]


def replaying(live: Live, failpoint: str = "") -> subprocess.Popen[bytes]:
    ground = live.ground
    given = {
        "pipeline": ground.name,
        "suffix": ground.suffix,
        "results_url": ground.results_url,
        "folder": str(live.folder / "slices"),
    }
    environment = os.environ | {
        "ELECTRORED_KAFKA_BOOTSTRAP": ground.kafka.kafka_bootstrap,
        "ELECTRORED_SCHEMA_REGISTRY_URL": ground.kafka.schema_registry_url,
        VARIABLE: failpoint,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.integration.streaming.replay.replay_process", json.dumps(given)]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def states(live: Live) -> list[tuple[int, str]]:
    of = generations.c
    with live.ground.results.connect() as connection:
        return [tuple(row) for row in connection.execute(select(of.number, of.state).order_by(of.number))]


def test_a_replay_killed_at_every_step_and_in_its_slices_ends_as_if_it_never_was(live: Live) -> None:
    live.ground.feed(6000)
    chance = random.Random(11)
    for failpoint, left in (
        ("replay.topics", [(1, "active")]),
        ("replay.begun", [(1, "active"), (2, "building")]),
    ):
        assert replaying(live, failpoint).wait(120) == -signal.SIGKILL
        assert states(live) == left
    killed = 0
    for _ in range(4):
        process = replaying(live)
        try:
            # Slices begin after some 2 s of imports, and the whole takes longer than this.
            process.wait(2 + 3 * chance.random())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    assert killed
    if states(live)[-1] == (2, "building"):
        assert replaying(live, "replay.finished").wait(120) == -signal.SIGKILL
    assert states(live) == [(1, "active"), (2, "candidate")]
    with live.running():
        live.settled(1)
        live.settled(2)
        live.ground.feed(300)
        live.settled(2)
        assert live.compare(2).is_empty
