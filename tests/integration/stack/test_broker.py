"""A killed broker: fenced before it starts again, whatever is killed meanwhile."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil

from contracts.settings import KafkaSettings
from contracts.topics import SALES_EVENTS
from kafka_client.clients import describe_topics, ensure_topics, transactional_producer
from stack.kafka import Kafka
from stack.ports import Ports
from tests.support.waiting import wait_until


@contextmanager
def _broker(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_a_killed_broker_is_fenced_first_even_if_that_is_killed_too() -> None:
    folder = Path(tempfile.mkdtemp(prefix="electrored-test-"))
    ports = Ports.free()
    kafka = Kafka(folder / "kafka", ports.kafka, ports.kafka_controller)
    settings = KafkaSettings(kafka_bootstrap=kafka.bootstrap, schema_registry_url="http://127.0.0.1:1")
    try:
        kafka.finish(kafka.prepare())
        with _broker(kafka.command, folder / "first.log") as process:
            wait_until(kafka.is_ready, what="Kafka")
            ensure_topics(settings, [SALES_EVENTS])
            process.kill()
        with _broker(kafka.command, folder / "second.log") as process:
            controller = wait_until(lambda: psutil.Process(process.pid).children(), what="the controller")[0]
            process.kill()
            wait_until(lambda: not controller.is_running(), what="end of the controller with its parent")
        with _broker(kafka.command, folder / "third.log"):
            wait_until(kafka.is_ready, what="Kafka")
            assert (
                describe_topics(settings, [SALES_EVENTS.name])[SALES_EVENTS.name][1]
                == SALES_EVENTS.partitions
            )
            producer = transactional_producer(settings, uuid4().hex)
            producer.init_transactions(60)
        logs = [(folder / f"{name}.log").read_text() for name in ("first", "second", "third")]
        assert ["is fenced before it starts" in log for log in logs] == [False, True, True]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
