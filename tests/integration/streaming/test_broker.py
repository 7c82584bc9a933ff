"""Rule 2 when Kafka itself is killed in the middle: nothing lost, nothing twice, after it is back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from contracts.migrate import upgrade
from stack import databases
from stack.embedded import Embedded, running
from stack.kafka import is_ready
from tests.support.pipeline_harness import START, PipelineHarness
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak


@pytest.fixture
def own_stack() -> Iterator[Embedded]:
    """A Kafka that may be killed: the session's is in use by others."""
    folder = Path(tempfile.mkdtemp(prefix="electrored-test-"))
    try:
        with running(folder) as embedded:
            yield embedded
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_kafka_killed_in_the_middle_of_a_load(own_stack: Embedded, tmp_path: Path) -> None:
    url = databases.create_database(own_stack.postgres(), "results_killed").render_as_string(
        hide_password=False
    )
    upgrade(url)
    harness = PipelineHarness(own_stack.kafka, url, tmp_path)
    workers = {slot: harness.worker(slot) for slot in range(2)}
    broker = own_stack.processes["kafka"]
    try:
        harness.feed(500)
        wait_until(harness.actual, what="first total")
        for _ in range(20):
            harness.feed(1_000, frontier=START + timedelta(days=30))
        broker.kill()
        broker.wait()
        broker = _start_again(broker, tmp_path / "kafka.log")
        wait_until(lambda: is_ready(own_stack.bootstrap), what="Kafka")

        def settled() -> bool:
            # What the supervisor does for a worker that the broker fenced while it was away.
            for slot, worker in workers.items():
                if worker.poll() is not None:
                    workers[slot] = harness.worker(slot)
            return harness.actual() == harness.expected()

        wait_until(settled, 120, what="agreement with the events")
        harness.producer.begin_transaction()
        harness.producer.abort_transaction(60)
        harness.feed(500)
        wait_until(settled, 120, what="agreement with the events fed afterwards")
    finally:
        harness.close()
        broker.send_signal(signal.SIGTERM)
        broker.wait(60)


def _start_again(broker: subprocess.Popen[bytes], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            broker.args,
            env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
