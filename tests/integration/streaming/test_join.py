"""Sales and payments over real Kafka and PostgreSQL: whatever dies, table and public topic are the join of the logs."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta

import pytest

from tests.support.join_harness import START, JoinHarness
from tests.support.waiting import wait_until


@pytest.mark.soak
def test_table_and_topic_are_the_join_though_workers_are_killed(join: JoinHarness) -> None:
    workers = {slot: join.worker(slot) for slot in range(2)}
    fed = threading.Event()

    def load() -> None:
        for _ in range(30):
            join.feed(300)
            time.sleep(0.2)
        fed.set()

    feeding = threading.Thread(target=load)
    feeding.start()
    chance = random.Random(3)
    wait_until(join.rows, what="first row")
    kills = 0
    while not fed.is_set() or kills < 3:
        slot = chance.randrange(2)
        workers[slot].kill()
        workers[slot].wait()
        workers[slot] = join.worker(slot)
        kills += 1
        fed.wait(chance.uniform(1, 3))
    feeding.join()
    join.settled()
    assert [worker.poll() for worker in workers.values()] == [None, None]
    assert not join.failures


def test_the_watermark_is_the_least_of_capture_and_payments(join: JoinHarness) -> None:
    worker = join.worker()
    join.feed(50)
    join.frontiers(postgres=START + timedelta(days=8))
    join.settled()
    assert join.watermark() is None, "nothing was heard of payments"
    join.frontiers(soap=START + timedelta(days=7))
    wait_until(lambda: join.watermark() == START + timedelta(days=7), what="watermark of payments")
    # A file that is not finished holds back as capture does.
    file_at = START + timedelta(days=8, hours=1)
    join.frontiers(soap=START + timedelta(days=10), postgres=START + timedelta(days=9), csv=file_at)
    wait_until(lambda: join.watermark() == file_at, what="watermark of the file")
    worker.terminate()
    assert worker.wait(60) == 0
