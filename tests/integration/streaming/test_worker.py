"""Rule 2, sales-events → partials → state: whatever dies, every event counts once in the state topic."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from datetime import timedelta

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from contracts.topics import INTERNAL_PARTITIONS
from kafka_client import clients as connect
from tests.integration.streaming.ground import START, Ground, wait_until

FRONTIER = START + timedelta(days=30)


def test_moves_events_to_the_state_topic_once(ground: Ground) -> None:
    worker = ground.worker()
    for _ in range(5):
        ground.feed(400, frontier=FRONTIER)
    ground.settled()
    wait_until(
        lambda: len(ground.watermarks()) == INTERNAL_PARTITIONS, what="watermark of every state partition"
    )
    worker.terminate()
    assert worker.wait(60) == 0


def test_workers_killed_in_the_middle_of_a_load_lose_and_double_nothing(ground: Ground) -> None:
    workers = {slot: ground.worker(slot) for slot in range(3)}
    fed = threading.Event()

    def load() -> None:
        for _ in range(60):
            ground.feed(500, frontier=FRONTIER)
            time.sleep(0.1)
        fed.set()

    feeding = threading.Thread(target=load)
    feeding.start()
    chance = random.Random(11)
    wait_until(ground.actual, what="first total")
    kills = 0
    while not fed.is_set() or kills < 4:
        slot = chance.randrange(3)
        workers[slot].kill()
        workers[slot].wait()
        workers[slot] = ground.worker(slot)
        kills += 1
        fed.wait(chance.uniform(0.5, 2.5))
    feeding.join()
    ground.settled()
    # A kill is no reason for the others to stop.
    assert [worker.poll() for worker in workers.values()] == [None, None, None]


def test_a_killed_workers_partitions_are_read_again_within_10_seconds(ground: Ground) -> None:
    ground.feed(100, frontier=FRONTIER)
    first, second = ground.worker(0), ground.worker(1)
    for slot in (0, 1):
        wait_until(lambda slot=slot: ground.logged(slot, "combine", "partitions assigned"), what="assignment")
    ground.settled()
    first.kill()
    killed_at = time.monotonic()
    ground.feed(400)
    ground.settled(30)
    # The broker's session timeout is 5 s of it; the rest is reading back, on a machine that does much else.
    assert time.monotonic() - killed_at <= 10
    assert second.poll() is None


def test_a_zombie_is_fenced(ground: Ground) -> None:
    ground.feed(300)
    zombie = ground.worker(0)
    ground.settled()
    zombie.send_signal(signal.SIGSTOP)
    # On another machine, say: the zombie's stores are its own.
    replacement = ground.worker(0, stores="elsewhere")
    ground.feed(300)
    ground.settled()
    ground.feed(300)
    zombie.send_signal(signal.SIGCONT)

    def ended() -> bool:
        # It notices when it has something to commit.
        ground.feed(50)
        return zombie.poll() is not None

    wait_until(ended, what="end of the zombie")
    assert zombie.returncode == 1
    ground.settled()
    assert replacement.poll() is None
    assert ground.logged(0, "FATAL", "fenced")


def test_committed_offset_and_progress_disagree_is_fatal(ground: Ground) -> None:
    _settle_and_stop(ground, 500)
    _move_committed_offset(ground, "combine", ground.source.name, 0, by=-1)
    worker = ground.worker()
    assert worker.wait(120) == 1
    assert ground.logged(0, "FATAL", "is committed but progress says")


def test_a_committed_offset_without_progress_is_fatal(ground: Ground) -> None:
    ground.feed(500)
    _set_committed_offset(ground, "combine", ground.source.name, 0, 5)
    worker = ground.worker()
    assert worker.wait(120) == 1
    assert ground.logged(0, "FATAL", "has no progress")


def test_progress_stands_when_kafka_forgot_the_groups_offsets(ground: Ground) -> None:
    _settle_and_stop(ground, 500)
    groups = [ground.generation.names.group_id(step) for step in ("combine", "merge")]
    for deleted in ground.admin.delete_consumer_groups(groups).values():
        deleted.result(60)
    ground.worker()
    ground.feed(500)
    ground.settled()


def test_a_lost_store_is_read_anew_from_the_state_topic(ground: Ground) -> None:
    _settle_and_stop(ground, 500)
    shutil.rmtree(ground.folder / "state")
    ground.worker()
    ground.feed(500)
    ground.settled()


def test_a_corrupted_store_is_thrown_away(ground: Ground) -> None:
    _settle_and_stop(ground, 500)
    damaged = 0
    for file in (ground.folder / "state").rglob("*"):
        if file.name.startswith(("MANIFEST", "CURRENT")):
            file.write_bytes(b"not what RocksDB wrote")
            damaged += 1
    assert damaged
    ground.worker()
    ground.feed(500)
    ground.settled()
    assert ground.logged(0, "does not open and is read anew")


def test_a_re_created_topic_stops_the_worker(ground: Ground) -> None:
    worker = ground.worker()
    ground.feed(300)
    ground.settled()
    admin = ground.admin
    admin.delete_topics([ground.source.name], operation_timeout=10)[ground.source.name].result(60)
    wait_until(lambda: ground.source.name not in admin.list_topics(timeout=10).topics, what="deletion")
    connect.ensure_topics(ground.kafka, [ground.source])
    assert worker.wait(120) == 1
    assert ground.logged(0, "FATAL", ground.source.name)
    assert ground.worker().wait(120) == 1
    assert ground.logged(0, "FATAL", "was re-created or resized")


def _settle_and_stop(ground: Ground, events: int) -> None:
    worker = ground.worker()
    ground.feed(events)
    ground.settled()
    worker.terminate()
    assert worker.wait(60) == 0


def _move_committed_offset(ground: Ground, step: str, topic: str, partition: int, by: int) -> None:
    group = ground.generation.names.group_id(step)
    asked = ground.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    found = {place.partition: place.offset for place in asked[group].result(60).topic_partitions}
    _set_committed_offset(ground, step, topic, partition, found[partition] + by)


def _set_committed_offset(ground: Ground, step: str, topic: str, partition: int, offset: int) -> None:
    group = ground.generation.names.group_id(step)
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition, offset)])
    ground.admin.alter_consumer_group_offsets([wanted])[group].result(60)
