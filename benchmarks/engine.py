"""combine + merge, exactly-once, over a log that is there already: events a second and a CPU-second.

Beside it, in the same run, what it costs to consume the same log and do nothing with it: `kcat -C -f ''` if it is
installed, else a bare `consume()`. The machine is shared and noisy, so compare the ratio, not the figures.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Annotated, Any
from uuid import uuid4

import typer
from confluent_kafka import OFFSET_BEGINNING, Producer, TopicPartition

from benchmarks.figures import Figure
from benchmarks.servers import servers
from contracts.schemas import load
from contracts.settings import KafkaSettings, LogSettings
from contracts.topics import (
    DEAD_LETTERS,
    LATE_EVENTS,
    SALES_PARTITIONS,
    SOURCE_POSITIONS,
    GenerationTopics,
    Topic,
)
from kafka_client import clients as connect
from kafka_client.registry import Registry
from observability import logs
from observability.metrics import EVENTS, TRANSACTIONS
from streaming.engine.pipeline import Parameters, Pipeline
from streaming.generations.catalog import Generation, TopicIdentity
from streaming.generations.worker import Worker
from streaming.pipelines import CURRENT, PIPELINES

TARGET_PER_CPU_SECOND = 383_000
TARGET_OF_KCAT = 1 / 3
# As many as make librdkafka's batches full; a bigger transaction changes nothing.
PRELOAD_TRANSACTION = 20_000
DAYS = 30
# A log is nearly in order of time: shops report at once, a few later.
DISORDER_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Harness:
    """Topics of one measurement."""

    kafka: KafkaSettings
    pipeline: Pipeline
    suffix: str

    @property
    def source(self) -> Topic:
        """The log of sales."""
        return self.pipeline.inputs[0].source

    @property
    def sources(self) -> list[Topic]:
        """All logs."""
        return [each.source for each in self.pipeline.inputs]

    @classmethod
    def make(cls, kafka: KafkaSettings, name: str, partitions: int = SALES_PARTITIONS) -> Harness:
        suffix = uuid4().hex[:8]
        template = PIPELINES[name, CURRENT[name]]
        sources = [
            replace(each.source, name=f"{each.source.name}-{suffix}", partitions=partitions)
            for each in template.inputs
        ]
        pipeline = replace(template.over(*sources), name=f"{name}-{suffix}")
        harness = cls(kafka, pipeline, suffix)
        connect.ensure_topics(
            kafka, [*sources, *GenerationTopics(pipeline.name, 1).all, *harness.side_topics.values()]
        )
        return harness

    def anew(self) -> Harness:
        """The same log, to be read from its beginning: topics and groups of a pipeline that has none yet."""
        name = f"{self.pipeline.name}-{uuid4().hex[:8]}"
        connect.ensure_topics(self.kafka, GenerationTopics(name, 1).all)
        return replace(self, pipeline=replace(self.pipeline, name=name))

    @property
    def side_topics(self) -> dict[str, Any]:
        sides = {"positions": SOURCE_POSITIONS, "late": LATE_EVENTS, "dead": DEAD_LETTERS}
        return {role: replace(topic, name=f"{topic.name}-{self.suffix}") for role, topic in sides.items()}

    def generation(self) -> Generation:
        names = [*self.sources, *GenerationTopics(self.pipeline.name, 1).all]
        identities = connect.describe_topics(self.kafka, [topic.name for topic in names])
        return Generation(
            pipeline=self.pipeline.name,
            number=1,
            version=self.pipeline.version,
            state="active",
            parameters=Parameters("UTC", timedelta(hours=1), self.pipeline.calendar or "1-day"),
            topics={name: TopicIdentity(*identity) for name, identity in identities.items()},
            start_offsets=dict.fromkeys(range(sum(each.partitions for each in self.sources)), 0),
        )


def preload(
    harness: Harness, events: int, source: str = "postgres", *, first: int = 0, sale_ids: int | None = None
) -> None:
    """Sales of a month in 200 cities, each its own record, in order of time give or take some hours.

    Those before `first` are there already. `sale_ids`: how many distinct ones, which bounds what a join keeps; as many
    as events if left out.
    """
    codec = Registry(harness.kafka).codec(harness.source.subject, load(harness.source.schema))
    producer: Producer = connect.transactional_producer(harness.kafka, f"preload-{harness.suffix}-{source}")
    producer.init_transactions(30)
    chance = Random(1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for begin in range(first, events, PRELOAD_TRANSACTION):
        values = []
        for seq in range(begin, min(begin + PRELOAD_TRANSACTION, events)):
            sold_at = start + timedelta(days=DAYS * seq / events, seconds=chance.randrange(DISORDER_SECONDS))
            city = chance.randrange(200)
            sale_id = f"{source[-1]}{seq % (sale_ids or events):011d}"
            event = {
                "source": source,
                "seq": seq,
                "sale_id": sale_id,
                "operation": "SALE",
                "sold_at": sold_at,
                "recorded_at": sold_at,
                "city": f"City {city}",
                "country": ("DE", "FR", "US", "JP")[city % 4],
                "salesman_id": f"s{chance.randrange(400)}",
                "salesman_name": "Alex Smith",
                "product": "product",
                "quantity": 1,
                "amount": Decimal(chance.randrange(10**7)).scaleb(-4),
                "currency": "EUR",
            }
            values.append((sale_id.encode(), codec.encode(event)))
        # Encoded before it begins: a transaction that lasts for seconds runs out of time on a busy machine.
        producer.begin_transaction()
        for key, value in values:
            producer.produce(harness.source.name, value, key)
        producer.commit_transaction(60)


def measure(kafka: KafkaSettings, harness: Harness, events: int, folder: str) -> dict[str, float]:
    """A worker in this process until its counters stop; figures between its first commit and its last."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            worker = Worker(
                kafka,
                harness.pipeline,
                harness.generation(),
                0,
                Path(folder),
                lambda *_: (),
                **harness.side_topics,
            )
            worker.run(stop)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    samples: list[tuple[float, float, float, float]] = []
    quiet_since = time.monotonic()
    while not failed:
        time.sleep(0.02)
        sample = (time.monotonic(), time.process_time(), total(EVENTS, "combine"), total(EVENTS, "merge"))
        if samples and sample[2:] != samples[-1][2:]:
            quiet_since = sample[0]
        samples.append(sample)
        if sample[2] >= events and sample[0] - quiet_since > 2:
            break
    stop.set()
    thread.join()
    if failed:
        raise failed[0]
    began = next(sample for sample in samples if sample[2] > 0)
    ended = next(sample for sample in samples if sample[2:] == samples[-1][2:])
    taken = events - began[2]
    if not taken:
        raise ValueError(f"{events} events are one commit: too few to have an interval")
    return {
        "events": taken,
        "seconds": ended[0] - began[0],
        "cpu_seconds": ended[1] - began[1],
        "combine_transactions": total(TRANSACTIONS, "combine"),
        "merge_transactions": total(TRANSACTIONS, "merge"),
        "max_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def total(metric: Any, step: str) -> float:
    """The metric of this step, over all inputs; read from the objects: collecting all costs what is measured."""
    value: float = sum(
        child._value.get() for values, child in list(metric._metrics.items()) if f".g1.{step}" in values[0]
    )
    return value


def consume_only(harness: Harness, events: int) -> tuple[str, float, float]:
    """The log read and dropped: by what, seconds, CPU-seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    kcat = shutil.which("kcat")
    if kcat:
        topic = harness.source.name
        command = [
            kcat,
            "-C",
            "-b",
            harness.kafka.kafka_bootstrap,
            "-t",
            topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            "",
        ]
        subprocess.run(command, check=True, timeout=300)
    else:
        in_child(_drain, harness, events)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return "kcat" if kcat else "consume()", time.monotonic() - started, cpu


def _drain(harness: Harness, events: int) -> None:
    reader = connect.consumer(harness.kafka, f"drain-{harness.suffix}", subscribed=False)
    topic = harness.source
    reader.assign([TopicPartition(topic.name, p, OFFSET_BEGINNING) for p in range(topic.partitions)])
    seen = 0
    while seen < events:
        seen += sum(message.error() is None for message in reader.consume(50_000, 1))
    reader.close()


def in_child(function: Any, *arguments: Any) -> Any:
    """The function's result, from a process that did nothing else."""
    context = multiprocessing.get_context("spawn")
    # Stdout is for the figures.
    quiet = ("benchmark", LogSettings(log_level="WARNING"))
    with context.Pool(1, initializer=logs.configure, initargs=quiet) as pool:
        return pool.apply(function, arguments)


def preload_by_two(harness: Harness, events: int, *, first: int = 0, sale_ids: int | None = None) -> None:
    """The same by two processes, half of two sources each: encoding is what takes the time."""
    with ThreadPoolExecutor(2) as threads:
        halves = [
            threads.submit(in_child, _preload_half, harness, events // 2, source, first // 2, sale_ids)
            for source in ("history-1", "history-2")
        ]
        for half in halves:
            half.result()


def _preload_half(harness: Harness, events: int, source: str, first: int, sale_ids: int | None) -> None:
    preload(harness, events, source, first=first, sale_ids=sale_ids)


@contextmanager
def kafka_of_its_own() -> Iterator[KafkaSettings]:
    with servers() as stack:
        yield stack.kafka


def figures(events: int = 2_000_000, pipeline: str = "top-sales-by-city", rounds: int = 2) -> list[Figure]:
    """The best of some rounds, on an embedded Kafka of its own."""
    best = max(_rounds(events, pipeline, rounds), key=lambda result: result["of_peer"])
    peer = next(name for name in best if name.endswith("_per_cpu_second") and name != "events_per_cpu_second")
    # Either target will do: the absolute one is of another machine, the ratio of this one.
    met = best["events_per_cpu_second"] >= TARGET_PER_CPU_SECOND or best["of_peer"] >= TARGET_OF_KCAT
    return [
        Figure("combine + merge", best["events_per_second"], "events/s"),
        Figure(
            "combine + merge, per CPU-second",
            best["events_per_cpu_second"],
            "events",
            f"≥ {TARGET_PER_CPU_SECOND:,}, or a third of {peer.removesuffix('_per_cpu_second')}",
            met,
        ),
        Figure(f"{peer.removesuffix('_per_cpu_second')} alone, per CPU-second", best[peer], "events"),
        Figure("combine + merge beside it", best["of_peer"], "×"),
    ]


def _rounds(events: int, pipeline: str, rounds: int) -> Iterator[dict[str, float]]:
    """Each round reads the same log from its beginning, with topics and groups of its own."""
    with kafka_of_its_own() as kafka:
        loaded = Harness.make(kafka, pipeline)
        preload(loaded, events)
        for _ in range(rounds):
            fresh = loaded.anew()
            with tempfile.TemporaryDirectory() as folder:
                ours = in_child(measure, kafka, fresh, events, folder)
            peer, seconds, cpu = consume_only(loaded, events)
            yield ours | {
                "events_per_second": ours["events"] / ours["seconds"],
                "events_per_cpu_second": ours["events"] / ours["cpu_seconds"],
                f"{peer}_per_second": events / seconds,
                f"{peer}_per_cpu_second": events / cpu,
                "of_peer": ours["events"] / ours["cpu_seconds"] / (events / cpu),
            }


def main(
    events: Annotated[int, typer.Option(help="Events in the log.")] = 2_000_000,
    pipeline: Annotated[str, typer.Option(help="Which pipeline.")] = "top-sales-by-city",
    rounds: Annotated[int, typer.Option(help="How often, each from the beginning of the log.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON instead of text.")] = False,
) -> None:
    """Measure on an embedded Kafka of its own."""
    results = []
    for ours in _rounds(events, pipeline, rounds):
        results.append(ours)
        if not as_json:
            typer.echo("  ".join(f"{name} {value:,.2f}" for name, value in ours.items()))
    best = max(results, key=lambda result: float(result["of_peer"]))
    met = best["events_per_cpu_second"] >= TARGET_PER_CPU_SECOND or best["of_peer"] >= TARGET_OF_KCAT
    if as_json:
        typer.echo(json.dumps(best | {"met": met}))
    else:
        typer.echo(
            f"combine + merge: {best['events_per_cpu_second']:,.0f} events a CPU-second, {best['of_peer']:.2f} of "
            f"consuming alone (target: {TARGET_PER_CPU_SECOND:,} or {TARGET_OF_KCAT:.2f}): "
            f"{'met' if met else 'not met'}"
        )


if __name__ == "__main__":
    typer.run(main)
