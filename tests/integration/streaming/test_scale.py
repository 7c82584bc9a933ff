"""1, 2, 4, 2 and 1 worker processes over 8 partitions, under a steady load: pauses are short, totals right."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from contracts import topics
from contracts.schemas import load
from contracts.settings import ResultsDbSettings
from kafka_client import clients as connect
from kafka_client.offsets import ends
from kafka_client.registry import Registry
from stack.embedded import Embedded
from tests.support.machine import SLOWNESS
from tests.support.pipeline_harness import START, PipelineHarness
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

PARTITIONS = 8
# Of partials and state, in the proportion that the catalogue has: so that merge, too, moves at each step.
INTERNAL_PARTITIONS = 4
FRONTIER = START + timedelta(days=30)
FEED_EVENTS, FEED_SECONDS = 100, 0.1
# The promise is of two quiet cores. A killed worker is missed after the broker's session timeout.
HANDED_OVER_SECONDS = 3.0 * SLOWNESS
SESSION_SECONDS = 5.0
# From the start of a process, or the death of one, until all have what the coordinator wants them to have.
SHARED_SECONDS = 15.0


class Priced(PipelineHarness):
    """Sales only, each of its group's one price: so any wrong total is recognizable."""

    def _event(self) -> dict[str, Any]:
        event = super()._event()
        return event | {"operation": "SALE", "quantity": 1, "amount": _price(event["city"])}


def _price(city: str) -> Decimal:
    return (Decimal(10_007) + int(city.rpartition("-")[2])).scaleb(-4)


@pytest.fixture
def wide(
    stack: Embedded, results_db: ResultsDbSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Priced]:
    monkeypatch.setattr(topics, "INTERNAL_PARTITIONS", INTERNAL_PARTITIONS)
    url = results_db.results_db_url.get_secret_value()
    made = Priced(stack.kafka, url, tmp_path, partitions=PARTITIONS)
    yield made
    made.close()


def test_partitions_move_to_more_workers_and_back_within_3_seconds_and_nothing_is_wrong(wide: Priced) -> None:
    workers: list[subprocess.Popen[bytes]] = []
    with _steady_load(wide):
        for count in (1, 2, 4):
            workers += [wide.worker(slot) for slot in range(len(workers), count)]
            _wait_until_shared(wide, count)
        for leaving in workers[1:3]:
            leaving.terminate()
        assert [leaving.wait(60) for leaving in workers[1:3]] == [0, 0]
        _wait_until_shared(wide, 2)
        killed_at = time.time()
        workers[3].kill()
        _wait_until_shared(wide, 1)
    wide.settled()
    assert workers[0].poll() is None

    rests = _rests(wide)
    assert {step: len(partitions) for step, partitions in rests.items()} == {
        "combine": PARTITIONS,
        "merge": INTERNAL_PARTITIONS,
    }
    all_rests = [rest for partitions in rests.values() for each in partitions.values() for rest in each]
    # A record is written before its transaction ends, so none of the dead one's is younger than its death.
    of_the_kill = [end - begin for begin, end in all_rests if begin <= killed_at < end]
    others = [end - begin for begin, end in all_rests if not begin <= killed_at < end]
    assert max(others) < HANDED_OVER_SECONDS
    assert max(of_the_kill) < SESSION_SECONDS + HANDED_OVER_SECONDS
    _check_every_record(wide)


@contextmanager
def _steady_load(harness: PipelineHarness) -> Iterator[None]:
    stop = threading.Event()

    def feed() -> None:
        while not stop.wait(FEED_SECONDS):
            harness.feed(FEED_EVENTS, frontier=FRONTIER)

    with ThreadPoolExecutor(1) as thread:
        feeding = thread.submit(feed)
        try:
            yield
        finally:
            stop.set()
        feeding.result(60)


def _wait_until_shared(harness: PipelineHarness, workers: int) -> None:
    """Every worker has as many partitions as the others, by the broker, and what the log held then is counted."""
    for step, partitions in (("combine", PARTITIONS), ("merge", INTERNAL_PARTITIONS)):
        group = harness.generation.names.group_id(step)
        wanted = [partitions // workers] * workers

        def is_shared(group: str = group, wanted: list[int] = wanted) -> bool:
            return _shares(harness, group) == wanted

        wait_until(is_shared, SHARED_SECONDS, f"{step} shared {wanted}")
    source, group = harness.source.name, harness.generation.names.group_id("combine")
    there = ends(harness.admin, source, range(PARTITIONS))
    reader = connect.consumer(harness.kafka, group, subscribed=False)

    def lag() -> int:
        committed = connect.committed_offsets(reader, source, range(PARTITIONS))
        # Behind the last record is its transaction's marker, which no consumer gets.
        return sum(max(0, end - 1 - committed.get(partition, 0)) for partition, end in there.items())

    wait_until(lambda: lag() == 0, SHARED_SECONDS, "end of the lag of all partitions")
    reader.close()


def _shares(harness: PipelineHarness, group: str) -> list[int]:
    """How many partitions each member has; none that two of them have."""
    found = harness.admin.describe_consumer_groups([group])[group].result(30)
    owned = [[place.partition for place in member.assignment.topic_partitions] for member in found.members]
    owners = Counter(partition for partitions in owned for partition in partitions)
    assert not owners or max(owners.values()) == 1, owned
    return sorted(map(len, owned))


def _rests(harness: PipelineHarness) -> dict[str, dict[int, list[tuple[float, float]]]]:
    """By step and partition, the times between commits that went on, by the progress topic's timestamps.

    Every hand-over is one of them, from the former owner's last commit to the new one's first that moved on.
    """
    names = harness.generation.names
    codec = Registry(harness.kafka).codec(names.progress.subject, load(names.progress.schema))
    at: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    for written_at, key, value in harness.timed(names.progress.name):
        step, _, number = key.decode().split("/")
        moments, offset = at[step, int(number)], codec.decode(value)["next_offset"]
        assert not moments or offset >= moments[-1][1], f"{key.decode()} went back"
        if not moments or offset > moments[-1][1]:
            moments.append((written_at, offset))
    rests: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(dict)
    for (step, partition), moments in at.items():
        rests[step][partition] = [(before[0], after[0]) for before, after in pairwise(moments)]
    return rests


def _check_every_record(harness: PipelineHarness) -> None:
    """In the order in which readers see them: a total is as many times the price, and only ever grows."""
    seen: Counter[bytes] = Counter()
    for key, value in harness.read(harness.generation.names.state.name):
        if key is None or key == b"watermark":
            continue
        _, record = harness.state_codec.decode(value)
        count = record["sales_count"]
        assert record["total"] == count * _price(record["city"]), (key, record)
        assert count > seen[key], f"{key.decode()}: {count} after {seen[key]}"
        seen[key] = count
    assert seen.total() == len(harness.events)
