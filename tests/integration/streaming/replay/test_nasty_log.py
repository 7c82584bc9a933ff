"""The log of `tests/pipelines/test_determinism.py` on a real Kafka: slices in processes that are killed, one result."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from contracts.tables import city_totals
from contracts.topics import LATE_EVENTS
from kafka_client.clients import admin
from kafka_client.offsets import ends
from streaming.generations.catalog import Generation
from streaming.replay import build, retirement
from streaming.sink import postgres
from tests.support.histories import oracle
from tests.support.live_harness import LiveHarness
from tests.support.nasty_log import facts, nasty_log, newer_schema
from tests.support.pipeline_harness import ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

PROCESSES = (1, 2)
# Of one process and its successors; the last one lives.
MOST_DEATHS = 1
Rows = dict[tuple[Any, ...], tuple[Any, ...]]


def write(live: LiveHarness) -> Rows:
    """The nasty log into the harness's topic; gives what it comes to, by a plain GROUP BY over its facts."""
    harness = live.harness
    newer = harness.registry.codec(harness.source.subject, newer_schema())
    harness.producer.begin_transaction()
    for partition, key, value in nasty_log(harness.codec, newer, harness.source.partitions):
        harness.producer.produce(harness.source.name, value, key, partition=partition)
    harness.producer.commit_transaction(60)
    possible = [fact for fact in facts(random.Random(7)) if fact["city"]]
    totals = oracle(harness.pipeline, harness.generation.parameters, possible).values()
    names = ("total", "sales_count", "late_count", "late_amount")
    groups = ("window_start", "country", "city", "currency")
    return {tuple(t[name] for name in groups): tuple(t[name] for name in names) for t in totals}


def shown(live: LiveHarness, number: int) -> Rows:
    of = city_totals.c
    wanted = select(
        of.window_start,
        of.country,
        of.city,
        of.currency,
        of.total,
        of.sales_count,
        of.late_count,
        of.late_amount,
    ).where(of.generation == number)
    with live.harness.results.connect() as connection:
        return {tuple(row[:4]): tuple(row[4:]) for row in connection.execute(wanted)}


@contextmanager
def sinking(live: LiveHarness) -> Iterator[None]:
    """The sink, in a thread; the active generation has no worker."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(postgres.run, live.harness.kafka, live.results, stop)
        try:
            yield
        finally:
            stop.set()
        ended.result(60)


def late_events(live: LiveHarness) -> int:
    """Offsets of the public topic that are taken; nothing else writes to it now."""
    kafka = live.harness.kafka
    return sum(ends(admin(kafka), LATE_EVENTS.name, range(LATE_EVENTS.partitions)).values())


def hash_of(rows: Rows) -> str:
    return hashlib.sha256(repr(sorted(rows.items())).encode()).hexdigest()


def run(live: LiveHarness, generation: Generation, places: Sequence[str], chance: random.Random) -> int:
    """These slices in a process, and in another one whenever it is killed; gives how often it was."""
    harness = live.harness
    environment = os.environ | {
        "ELECTRORED_KAFKA_BOOTSTRAP": harness.kafka.kafka_bootstrap,
        "ELECTRORED_SCHEMA_REGISTRY_URL": harness.kafka.schema_registry_url,
        "PYTHONPATH": str(ROOT),
    }
    given = {
        "pipeline": harness.name,
        "suffix": harness.suffix,
        "results_url": harness.results_url,
        "folder": str(live.folder / "slices"),
        "number": generation.number,
        "places": list(places),
    }
    for deaths in range(MOST_DEATHS + 1):
        given |= {"seed": chance.randrange(2**32), "deadly": deaths < MOST_DEATHS}
        command = [sys.executable, str(Path(__file__).parent / "slices_process.py"), json.dumps(given)]
        ended = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if ended == 0:
            return deaths
        assert ended == -signal.SIGKILL
    raise AssertionError("the last one was not to be killed")


def replay(live: LiveHarness, processes: int, chance: random.Random) -> tuple[int, int]:
    """Number of the generation, and how many processes were killed."""
    harness, killed = live.harness, 0
    generation = build.begin(harness.kafka, harness.results, live.request())
    for pieces in build.slices(generation):
        places = [str(piece) for piece in pieces]
        chance.shuffle(places)
        with ThreadPoolExecutor(processes) as threads:
            killed += sum(
                threads.map(
                    lambda part: run(live, generation, *part),
                    [(places[k::processes], random.Random(chance.random())) for k in range(processes)],
                )
            )
    build.finish(harness.results, generation)
    return generation.number, killed


def test_replays_of_a_nasty_log_by_processes_that_are_killed_have_one_hash(live: LiveHarness) -> None:
    harness, chance, hashes, killed = live.harness, random.Random(5), set(), 0
    expected = write(live)
    assert len(expected) > 500
    assert sum(late for _, _, late, _ in expected.values()) > 0
    told = late_events(live)
    with sinking(live):
        for processes in PROCESSES:
            number, deaths = replay(live, processes, chance)
            killed += deaths

            def totals(number: int = number) -> Any:
                return shown(live, number)

            wait_until(lambda: len(totals()) == len(expected), what="all groups")
            wait_until(lambda: totals() == expected, what="all totals")
            hashes.add(hash_of(shown(live, number)))
            retirement.retire(harness.kafka, harness.results, harness.pipeline.name, number)
    assert killed >= len(PROCESSES)
    assert len(hashes) == 1
    assert late_events(live) == told, "what was told long ago is not told again"
