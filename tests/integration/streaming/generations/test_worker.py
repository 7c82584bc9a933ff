"""Rule 2, sales-events → partials → state: whatever dies, every event counts once in the state topic."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from datetime import timedelta
from functools import partial

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from contracts.topics import INTERNAL_PARTITIONS
from kafka_client import clients as connect
from tests.support.pipeline_harness import START, PipelineHarness
from tests.support.waiting import wait_until

FRONTIER = START + timedelta(days=30)


def test_moves_events_to_the_state_topic_once(harness: PipelineHarness) -> None:
    worker = harness.worker()
    for _ in range(5):
        harness.feed(400, frontier=FRONTIER)
    harness.settled()
    wait_until(
        lambda: len(harness.watermarks()) == INTERNAL_PARTITIONS, what="watermark of every state partition"
    )
    worker.terminate()
    assert worker.wait(60) == 0


@pytest.mark.soak
def test_workers_killed_in_the_middle_of_a_load_lose_and_double_nothing(harness: PipelineHarness) -> None:
    workers = {slot: harness.worker(slot) for slot in range(3)}
    fed = threading.Event()

    def load() -> None:
        for _ in range(60):
            harness.feed(500, frontier=FRONTIER)
            time.sleep(0.1)
        fed.set()

    feeding = threading.Thread(target=load)
    feeding.start()
    chance = random.Random(11)
    wait_until(harness.actual, what="first total")
    kills = 0
    while not fed.is_set() or kills < 4:
        slot = chance.randrange(3)
        workers[slot].kill()
        workers[slot].wait()
        workers[slot] = harness.worker(slot)
        kills += 1
        fed.wait(chance.uniform(0.5, 2.5))
    feeding.join()
    harness.settled()
    # A kill is no reason for the others to stop.
    assert [worker.poll() for worker in workers.values()] == [None, None, None]


def test_a_killed_workers_partitions_are_read_again_within_10_seconds(harness: PipelineHarness) -> None:
    harness.feed(100, frontier=FRONTIER)
    first, second = harness.worker(0), harness.worker(1)
    for slot in (0, 1):
        wait_until(partial(harness.logged, slot, "combine", "partitions assigned"), what="assignment")
    harness.settled()
    first.kill()
    killed_at = time.time()
    harness.feed(400)
    harness.settled(30)
    totals = [at for at, key, _ in harness.timed(harness.generation.names.state.name) if key != b"watermark"]
    # The broker's session timeout is 5 s of it; the rest is reading back, on a machine that does much else. Taken from
    # the records: the test's own read of them may come later.
    assert killed_at < max(totals) <= killed_at + 10
    assert second.poll() is None


def test_a_zombie_is_fenced(harness: PipelineHarness) -> None:
    harness.feed(300)
    zombie = harness.worker(0)
    harness.settled()
    zombie.send_signal(signal.SIGSTOP)
    # As on another machine: the zombie's stores are its own.
    replacement = harness.worker(0, stores="elsewhere")
    harness.feed(300)
    harness.settled()
    harness.feed(300)
    zombie.send_signal(signal.SIGCONT)

    def ended() -> bool:
        # It notices when it has something to commit.
        harness.feed(50)
        return zombie.poll() is not None

    wait_until(ended, what="end of the zombie")
    assert zombie.returncode == 1
    harness.settled()
    assert replacement.poll() is None
    assert harness.logged(0, "FATAL", "fenced")


def test_committed_offset_and_progress_disagree_is_fatal(harness: PipelineHarness) -> None:
    _settle_and_stop(harness, 500)
    _move_committed_offset(harness, "combine", harness.source.name, 0, by=-1)
    worker = harness.worker()
    assert worker.wait(120) == 1
    assert harness.logged(0, "FATAL", "is committed but progress is at")


def test_a_committed_offset_without_progress_is_fatal(harness: PipelineHarness) -> None:
    harness.feed(500)
    _set_committed_offset(harness, "combine", harness.source.name, 0, 5)
    worker = harness.worker()
    assert worker.wait(120) == 1
    assert harness.logged(0, "FATAL", "has no progress")


def test_progress_stands_when_kafka_forgot_the_groups_offsets(harness: PipelineHarness) -> None:
    _settle_and_stop(harness, 500)
    groups = [harness.generation.names.group_id(step) for step in ("combine", "merge")]
    for deleted in harness.admin.delete_consumer_groups(groups).values():
        deleted.result(60)
    harness.worker()
    harness.feed(500)
    harness.settled()


def test_a_lost_store_is_read_anew_from_the_state_topic(harness: PipelineHarness) -> None:
    _settle_and_stop(harness, 500)
    shutil.rmtree(harness.folder / "state")
    harness.worker()
    harness.feed(500)
    harness.settled()


def test_a_corrupted_store_is_thrown_away(harness: PipelineHarness) -> None:
    _settle_and_stop(harness, 500)
    damaged = 0
    for file in (harness.folder / "state").rglob("*"):
        if file.name.startswith(("MANIFEST", "CURRENT")):
            file.write_bytes(b"not what RocksDB wrote")
            damaged += 1
    assert damaged
    harness.worker()
    harness.feed(500)
    harness.settled()
    assert harness.logged(0, "does not open and is read anew")


def test_a_re_created_topic_stops_the_worker(harness: PipelineHarness) -> None:
    worker = harness.worker()
    harness.feed(300)
    harness.settled()
    admin = harness.admin
    admin.delete_topics([harness.source.name], operation_timeout=10)[harness.source.name].result(60)
    wait_until(lambda: harness.source.name not in admin.list_topics(timeout=10).topics, what="deletion")
    connect.ensure_topics(harness.kafka, [harness.source])
    assert worker.wait(120) == 1
    assert harness.logged(0, "FATAL", harness.source.name)
    assert harness.worker().wait(120) == 1
    assert harness.logged(0, "FATAL", "was re-created or resized")


def _settle_and_stop(harness: PipelineHarness, events: int) -> None:
    worker = harness.worker()
    harness.feed(events)
    harness.settled()
    worker.terminate()
    assert worker.wait(60) == 0


def _move_committed_offset(harness: PipelineHarness, step: str, topic: str, partition: int, by: int) -> None:
    group = harness.generation.names.group_id(step)
    asked = harness.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    found = {place.partition: place.offset for place in asked[group].result(60).topic_partitions}
    _set_committed_offset(harness, step, topic, partition, found[partition] + by)


def _set_committed_offset(
    harness: PipelineHarness, step: str, topic: str, partition: int, offset: int
) -> None:
    group = harness.generation.names.group_id(step)
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])
    harness.admin.alter_consumer_group_offsets([wanted])[group].result(60)
