"""A generation over topics of its own, events to feed it, and what it should come to."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import DEAD_LETTERS, LATE_EVENTS, SALES_EVENTS, SOURCE_POSITIONS
from kafka_client import clients as connect
from kafka_client.registry import Registry
from streaming.engine.loop import Loop
from streaming.engine.pipeline import Parameters
from streaming.generations import catalog
from streaming.generations.schema_ids import keep
from streaming.generations.worker import Worker
from streaming.pipelines import CURRENT, PIPELINES
from tests.support import threads
from tests.support.events import sale_event

ROOT = Path(__file__).parents[2]


def worker_process(kafka: KafkaSettings, given: dict[str, object], log: Path) -> subprocess.Popen[bytes]:
    """tests/integration/streaming/worker_process.py with what it is given, its output at the end of the log."""
    environment = os.environ | {
        "ELECTRORED_KAFKA_BOOTSTRAP": kafka.kafka_bootstrap,
        "ELECTRORED_SCHEMA_REGISTRY_URL": kafka.schema_registry_url,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(ROOT / "tests/integration/streaming/worker_process.py"), json.dumps(given)]
    with log.open("ab") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)


START = datetime(2026, 3, 1, tzinfo=UTC)
Totals = dict[tuple[str, ...], tuple[Decimal, int]]


@dataclass
class PipelineHarness:
    """One generation of top-sales-by-city with its own topics; processes that work on it; the oracle."""

    kafka: KafkaSettings
    results_url: str
    folder: Path
    name: str = "top-sales-by-city"
    # Of the log; a worker's code does not depend on their number.
    partitions: int = SALES_EVENTS.partitions
    suffix: str = field(default_factory=lambda: uuid4().hex[:10])
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = replace(
            SALES_EVENTS, name=f"{SALES_EVENTS.name}-{self.suffix}", partitions=self.partitions
        )
        self.positions = replace(SOURCE_POSITIONS, name=f"{SOURCE_POSITIONS.name}-{self.suffix}")
        self.late = replace(LATE_EVENTS, name=f"{LATE_EVENTS.name}-{self.suffix}")
        self.dead = replace(DEAD_LETTERS, name=f"{DEAD_LETTERS.name}-{self.suffix}")
        original = PIPELINES[self.name, CURRENT[self.name]]
        # The first version of a pipeline of its own: a test may mend it by a second one.
        self.pipeline = replace(original.over(self.source), name=f"{self.name}-{self.suffix}", version=1)
        self.admin = connect.admin(self.kafka)
        connect.ensure_topics(self.kafka, [self.positions, self.late, self.dead])
        self.registry = Registry(self.kafka)
        self.codec = self.registry.codec(self.source.subject, load(self.source.schema))
        self.positions_codec = self.registry.codec(self.positions.subject, load(self.positions.schema))
        self.results = create_engine(self.results_url, poolclass=NullPool)
        parameters = Parameters("UTC", timedelta(hours=1), "1-day")
        self.generation = catalog.create(
            self.kafka, self.results, self.pipeline, parameters, reason="test", created_by="test"
        )
        self.state_codec = self.registry.codec(
            self.generation.names.state.subject, self.pipeline.state_schema()
        )
        self._random = random.Random(7)
        self._next_seq = 0
        self._producer: Producer | None = None

    # -- feeding

    @property
    def producer(self) -> Producer:
        if self._producer is None:
            self._producer = connect.transactional_producer(self.kafka, f"test-{self.suffix}")
            self._producer.init_transactions(60)
        return self._producer

    def feed(self, count: int, *, frontier: datetime | None = None, commit: bool = True) -> None:
        """That many events in one transaction, with the source's position."""
        self.producer.begin_transaction()
        events = [self._event() for _ in range(count)]
        for event in events:
            self.producer.produce(self.source.name, self.codec.encode(event), event["sale_id"].encode())
            self.producer.poll(0)
        if frontier is not None:
            record = {"source": "postgres", "next_seq": self._next_seq, "frontier": frontier, "detail": "{}"}
            value = self.positions_codec.encode(("electrored.SourcePosition", record))
            self.producer.produce(self.positions.name, value, b"postgres", partition=0)
        if commit:
            self.producer.commit_transaction(60)
            self.events += events
        else:
            self.producer.abort_transaction(60)

    def _event(self) -> dict[str, Any]:
        chance = self._random
        sold_at = START + timedelta(minutes=chance.randrange(60 * 24 * 5))
        sign = -1 if chance.random() < 0.1 else 1
        self._next_seq += 1
        return sale_event(
            self._next_seq,
            sale_id=f"s{chance.randrange(10**9)}",
            operation="SALE" if sign > 0 else "REVERSAL",
            sold_at=sold_at,
            recorded_at=sold_at + timedelta(seconds=1),
            city=f"city-{chance.randrange(40)}",
            country=chance.choice(["DE", "FR", "US"]),
            salesman_id=f"m{chance.randrange(30)}",
            quantity=sign,
            amount=sign * Decimal(chance.randrange(1, 10**7)).scaleb(-4),
            currency=chance.choice(["EUR", "USD"]),
        )

    # -- expected and actual results

    def expected(self) -> Totals:
        """A plain GROUP BY over the committed events."""
        totals: dict[tuple[str, ...], tuple[Decimal, int]] = defaultdict(lambda: (Decimal(0), 0))
        for event in self.events:
            key = (event["sold_at"].date().isoformat(), event["country"], event["city"], event["currency"])
            total, count = totals[key]
            totals[key] = (total + event["amount"], count + (1 if event["operation"] == "SALE" else -1))
        return dict(totals)

    def actual(self) -> Totals:
        """The newest committed totals of the state topic."""
        newest = {
            key: value for key, value in self.read(self.generation.names.state.name) if key != b"watermark"
        }
        totals: Totals = {}
        for value in newest.values():
            _, record = self.state_codec.decode(value)
            day = record["window_start"].date().isoformat()
            totals[day, record["country"], record["city"], record["currency"]] = (
                record["total"],
                record["sales_count"],
            )
        return totals

    def watermarks(self) -> list[datetime]:
        """Every watermark of the state topic, in order of reading."""
        return [
            self.state_codec.decode(value)[1]["watermark"]
            for key, value in self.read(self.generation.names.state.name)
            if key == b"watermark" and value is not None
        ]

    def read(self, topic: str) -> list[tuple[bytes | None, bytes]]:
        """Keys and values of all committed records of a topic, up to its end as it is now."""
        return [(message.key(), message.value() or b"") for message in self.messages(topic)]

    def messages(self, topic: str) -> list[Message]:
        """All committed records of a topic, up to its end as it is now."""
        reader: Consumer = connect.consumer(
            self.kafka, f"test-{uuid4().hex}", subscribed=False, overrides={"fetch.wait.max.ms": 10}
        )
        _, partitions = connect.describe_topics(self.kafka, [topic])[topic]
        reader.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
        open_partitions, found = set(range(partitions)), []
        while open_partitions:
            # It waits so long for so many, whatever comes.
            for message in reader.consume(10_000, 0.2):
                if message.error() is None:
                    found.append(message)
                else:
                    open_partitions.discard(message.partition() or 0)
        reader.close()
        return found

    def timed(self, topic: str) -> list[tuple[float, bytes, bytes]]:
        """As `read`, with the time at which each was written; partition by partition in order."""
        return [
            (message.timestamp()[1] / 1000, message.key() or b"", message.value() or b"")
            for message in self.messages(topic)
        ]

    def settled(self, seconds: float = 120.0) -> None:
        """Wait until the totals are those of all events; the error shows how they differ."""
        expected = self.expected()
        deadline = time.monotonic() + seconds
        while (actual := self.actual()) != expected:
            if time.monotonic() > deadline:
                wrong = {k for k in expected.keys() | actual.keys() if expected.get(k) != actual.get(k)}
                sample = {k: (expected.get(k), actual.get(k)) for k in sorted(wrong)[:3]}
                raise AssertionError(
                    f"{len(wrong)} of {len(expected)} groups differ (expected, actual): {sample}; "
                    f"workers ended with {[process.poll() for process in self.processes]}; {self._last_words()}"
                )
            time.sleep(0.2)

    def _last_words(self) -> list[list[str]]:
        logs = sorted(self.folder.glob("worker*.log"))
        return [log.read_text(errors="replace").splitlines()[-8:] for log in logs]

    # -- workers

    def worker(self, slot: int = 0, stores: str = "state") -> subprocess.Popen[bytes]:
        """A worker in a process of its own, with its stores in that folder."""
        given = {
            "suffix": self.suffix,
            "pipeline": self.name,
            "slot": slot,
            "results_url": self.results_url,
            "state_dir": str(self.folder / stores),
        }
        process = worker_process(self.kafka, given, self.log(slot))
        self.processes.append(process)
        return process

    def loops(self, slot: int = 0, folder: str = "inside") -> tuple[Loop, Loop]:
        """combine and merge of a worker in this process, not started; the test closes them."""
        worker = Worker(
            self.kafka,
            self.pipeline,
            self.generation,
            slot,
            self.folder / folder,
            partial(keep, self.results),
            positions=self.positions,
            late=self.late,
            dead=self.dead,
        )
        combine, merge = worker.loops()
        return combine, merge

    @contextmanager
    def running(self, *loops: Loop) -> Iterator[None]:
        """The loops in threads; what ends one of them is raised here."""
        with threads.running(*(loop.run for loop in loops)):
            yield

    def log(self, slot: int) -> Path:
        return self.folder / f"worker{slot}.log"

    def logged(self, slot: int, *needles: str) -> bool:
        """Whether one line of the worker's log holds all of these."""
        lines: Sequence[str] = (
            self.log(slot).read_text(errors="replace").splitlines() if self.log(slot).exists() else []
        )
        return any(all(needle in line for needle in needles) for line in lines)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        if self._producer is not None:
            self._producer.close()
        self.results.dispose()
        names = [topic.name for topic in self.generation.names.all]
        names += [self.source.name, self.positions.name, self.late.name, self.dead.name]
        for future in self.admin.delete_topics(names, operation_timeout=10).values():
            future.exception()


def grouped(events: list[dict[str, Any]]) -> Totals:
    totals: dict[tuple[str, ...], tuple[Decimal, int]] = defaultdict(lambda: (Decimal(0), 0))
    for event in events:
        key = (event["sold_at"].date().isoformat(), event["country"], event["city"], event["currency"])
        total, count = totals[key]
        totals[key] = (total + event["amount"], count + (1 if event["operation"] == "SALE" else -1))
    return {key: value for key, value in totals.items() if value[1]}
