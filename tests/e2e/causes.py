"""Faults of a platform: each is a context, and is undone at its end where that is possible."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from contracts.settings import KafkaSettings, StackSettings
from contracts.topics import GenerationTopics
from kafka_client.clients import client_config, consumer
from lineage import outbox
from stack import databases, ports
from stack.kafka import Kafka
from stack.layout import Layout
from stack.postgres import SUPERUSER
from stack.programs import Platform as Programs
from stack.supervisor import Supervisor
from tests.e2e.alerts import FIRES_SECONDS, Prometheus
from tests.e2e.command import Platform, until


def programs(platform: Platform) -> Programs:
    layout = Layout(platform.folder)
    options = layout.options()
    assert options is not None
    return Programs(layout, options, StackSettings())


def results(platform: Platform) -> psycopg2.extensions.connection:
    """As its owner: readers may neither lock nor write."""
    url = programs(platform).results_url(databases.WRITER)
    connection = psycopg2.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
    )
    connection.autocommit = True
    return connection


@contextmanager
def frozen(platform: Platform, name: str) -> Iterator[None]:
    """The process hangs until the block ends."""
    pid = platform.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def kill(platform: Platform, name: str, prometheus: Prometheus) -> None:
    """kill -9; waits until its successor is up."""
    started = f'process_start_time_seconds{{process="{name}"}}'
    before = prometheus.query(started)[0]["value"][1]
    pid = platform.pid(name)
    assert pid is not None
    psutil.Process(pid).kill()
    until(
        lambda: any(row["value"][1] != before for row in prometheus.query(f"{started} and up == 1")),
        60,
        f"{name} again",
    )


@contextmanager
def stopped(platform: Platform, name: str) -> Iterator[None]:
    """SIGTERM to the process; it is started again when the block ends."""
    supervisor = Supervisor(Layout(platform.folder))
    supervisor.stop_process(name)
    try:
        yield
    finally:
        until(lambda: supervisor.states()[name].state == "stopped", 60, f"the end of {name}")
        supervisor.start_process(name)


def ask_api(platform: Platform, times: int = 1) -> None:
    url = f"{platform.addresses['ELECTRORED_API_URL']}/api/v1/top-sales/by-city"
    for _ in range(times):
        with suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()


def slow_answers(platform: Platform, prometheus: Prometheus) -> None:
    """Lock the tables the API reads."""
    with closing(results(platform)) as connection:
        cursor = connection.cursor()
        until_at = time.monotonic() + FIRES_SECONDS
        while "ApiSlow" not in prometheus.firing():
            assert time.monotonic() < until_at, "ApiSlow is not raised"
            cursor.execute("begin; lock table city_totals, generations in access exclusive mode")
            asking = threading.Thread(target=ask_api, args=(platform,))
            asking.start()
            time.sleep(0.7)
            cursor.execute("commit")
            asking.join(30)
            time.sleep(1)
        print("ApiSlow: raised")


@contextmanager
def negative_group(platform: Platform, pipeline: str) -> Iterator[None]:
    """A city with more taken back than sold, as a source whose log is not whole leaves it."""
    with closing(results(platform)) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "insert into city_totals (generation, window_start, window_end, country, city, currency, total, "
            "sales_count, late_count, late_amount, updated_at, apply_number) "
            "select generation, '2000-01-01', '2000-01-02', 'XX', 'Nowhere', 'EUR', -10, -1, 0, 0, now(), 0 "
            "from active_generations where pipeline = %s",
            (pipeline,),
        )
        yield
        cursor.execute("delete from city_totals where city = 'Nowhere'")


@contextmanager
def filled_disk(folder: Path, size: int) -> Iterator[None]:
    """Fill `size` bytes of the folder's disk."""
    path = folder / "fills-the-disk"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        yield
    finally:
        path.unlink()


@dataclass
class _Impostor:
    """Takes a transactional id again and again, as a second process in its slot does."""

    bootstrap: str
    transactional_id: str
    stop: threading.Event

    def run(self) -> None:
        while not self.stop.wait(1):
            producer = Producer(
                {
                    "bootstrap.servers": self.bootstrap,
                    "transactional.id": self.transactional_id,
                    "log_level": 2,
                }
            )
            with suppress(KafkaException):
                # The rightful owner is just doing the same.
                producer.init_transactions(30)


@contextmanager
def slot_taken(platform: Platform, pipeline: str, generation: int) -> Iterator[None]:
    """Another process believes that it works on the generation."""
    transactional_id = GenerationTopics(pipeline, generation).transactional_id("combine", 0)
    stop = threading.Event()
    impostor = _Impostor(platform.addresses["ELECTRORED_KAFKA_BOOTSTRAP"], transactional_id, stop)
    thread = threading.Thread(target=impostor.run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


def lose_a_broker(platform: Platform) -> None:
    """A second broker of the cluster got a topic, and is gone for good."""
    first = programs(platform).kafka
    (port,) = ports.free(1)
    second = _SecondBroker(platform.folder.resolve() / "second-broker", port, first.controller_port)
    second.finish(second.prepare())
    admin = AdminClient({"bootstrap.servers": first.bootstrap})
    with subprocess.Popen(
        second.command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, env=second.environment
    ) as process:
        try:
            until(lambda: 2 in admin.list_topics(timeout=10).brokers, 60, "the second broker")
            topic = NewTopic("of-the-second-broker", 1, replica_assignment=[[2]])
            admin.create_topics([topic])[topic.topic].result(30)
        finally:
            process.kill()
            process.wait(30)


@contextmanager
def kept_otherwise(platform: Platform, topic: str) -> Iterator[None]:
    """The topic deletes old records."""
    client = AdminClient({"bootstrap.servers": platform.addresses["ELECTRORED_KAFKA_BOOTSTRAP"]})

    def keep(policy: str) -> None:
        entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        client.incremental_alter_configs([resource])[resource].result(30)

    keep("delete")
    try:
        yield
    finally:
        keep("compact")


@contextmanager
def open_transaction(platform: Platform, topic: str) -> Iterator[None]:
    """A foreign transaction on the topic's first partition stays open until the block ends."""
    bootstrap = platform.addresses["ELECTRORED_KAFKA_BOOTSTRAP"]
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": "somebody",
            "transaction.timeout.ms": 600_000,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"something", partition=0)
    assert producer.flush(30) == 0
    try:
        yield
    finally:
        producer.abort_transaction(30)


def drop_slot(platform: Platform) -> None:
    """Drop capture's replication slot while capture is down."""
    made = programs(platform)
    url = made.postgres.url(databases.SALES, SUPERUSER, made.passwords[SUPERUSER])
    with closing(
        psycopg2.connect(
            host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
        )
    ) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        def is_dropped() -> bool:
            # One that is active cannot be dropped: capture ends first.
            cursor.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active"
            )
            return cursor.rowcount == 1

        until(is_dropped, 60, "the end of the slot")


def forget_position(platform: Platform, source: str) -> None:
    """A source's position is gone from its topic, as if it had never begun."""
    producer = Producer({"bootstrap.servers": platform.addresses["ELECTRORED_KAFKA_BOOTSTRAP"]})
    producer.produce("source-positions", None, key=source.encode())
    assert producer.flush(30) == 0


def copy_an_event(platform: Platform) -> None:
    """Write an event of the log into it once more."""
    settings = KafkaSettings(
        kafka_bootstrap=platform.addresses["ELECTRORED_KAFKA_BOOTSTRAP"],
        schema_registry_url=platform.addresses["ELECTRORED_SCHEMA_REGISTRY_URL"],
    )
    reader = consumer(settings, "test", subscribed=False)
    with closing(reader):
        reader.assign([TopicPartition("sales-events", 0, 0)])
        event = reader.poll(30)
    assert event is not None
    assert event.error() is None
    producer = Producer(client_config(settings))
    producer.produce("sales-events", event.value(), key=event.key(), partition=0)
    assert producer.flush(30) == 0


def refuse_lineage(platform: Platform, process: str) -> None:
    """Put an invalid event into the outbox of the process."""
    folder = platform.folder / "lineage"
    lane = min(lane for name, lane, _ in outbox.waiting(folder) if name == process)
    with closing(outbox.Outbox(folder, process)) as of_process:
        of_process.put(lane, "START", "{}")


class _SecondBroker(Kafka):
    """A broker without a controller: that of the platform's own broker is asked."""

    def properties(self) -> dict[str, str]:
        listener = f"PLAINTEXT://{self.bootstrap}"
        return super().properties() | {
            "process.roles": "broker",
            "node.id": "2",
            "listeners": listener,
            "advertised.listeners": listener,
        }
