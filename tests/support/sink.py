"""State topics that a test writes totals to, as merge would, and readers of the public topic."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from confluent_kafka import KafkaException, Producer, TopicPartition
from sqlalchemy import Engine, text
from tenacity import Retrying, retry_if_exception_type, stop_after_delay

from contracts.schemas import load
from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import GenerationTopics
from kafka_client import latency_header
from kafka_client.clients import admin, consumer, describe_topics, ensure_topics
from kafka_client.registry import Codec, Registry
from lineage.emitter import NULL_EMITTER, Emitter, NullEmitter
from lineage.model import Job
from observability.progress_report import ProgressReport
from stack.embedded import Embedded
from streaming.engine.pipeline import Pipeline
from streaming.engine.windows import to_micros
from streaming.sink.publisher import run
from streaming.sink.targets import SinkTarget
from tests.support import results
from tests.support.threads import collecting
from tests.support.waiting import wait_until

DAY = results.DAY
TIMEOUT_SECONDS = 90.0


class RecordingEmitter(NullEmitter):
    """The newest report of each run of a process, by job."""

    def __init__(self) -> None:
        self._runs: list[tuple[Callable[[], Job], Callable[[], ProgressReport]]] = []

    def run(
        self, job: Callable[[], Job], report: Callable[[], ProgressReport] = ProgressReport, **_: Any
    ) -> AbstractContextManager[None]:
        self._runs.append((job, report))
        return nullcontext()

    def of(self, name: str) -> ProgressReport:
        (report,) = (report for job, report in self._runs if job().name == name)
        return report()


@dataclass
class GenerationFixture:
    """One generation: `write` is a commit of merge."""

    followed: SinkTarget
    codec: Codec
    producer: Producer
    engine: Engine

    @property
    def topic(self) -> str:
        return self.followed.topic

    def total(self, city: str, total: str, count: int = 1, late: int = 0, **more: Any) -> dict[str, Any]:
        restated_at = DAY + timedelta(days=2) if late else None
        late_facts = {"late_count": late, "late_amount": Decimal(late), "restated_at": restated_at}
        return results.window_total(total, city=city, sales_count=count) | late_facts | more

    def write(
        self,
        totals: Sequence[dict[str, Any]] = (),
        watermark: datetime | None = None,
        commit: bool = True,
        oldest: datetime | None = None,
    ) -> None:
        """Totals to the partitions of their groups, the watermark to every partition, in one transaction.

        `oldest` is when the oldest event of the totals was committed at its source; the last total carries it.
        """
        partitions = self.followed.partitions
        self.producer.begin_transaction()
        for number, total in enumerate(totals, start=1):
            key = f"{total['window_start']:%Y-%m-%dT%H:%M:%SZ}|{total['country']}|{total['city']}|{total['currency']}"
            headers: Any = None
            if oldest and number == len(totals):
                headers = latency_header.headers(to_micros(oldest))
            self.producer.produce(
                self.topic,
                self.codec.encode(("electrored.Total", total)),
                key.encode(),
                partition=zlib.crc32(key.encode()) % partitions,
                headers=headers,
            )
        for partition in range(partitions) if watermark else ():
            value = self.codec.encode(("electrored.Watermark", {"watermark": watermark}))
            self.producer.produce(self.topic, value, b"watermark", partition=partition)
        if commit:
            self.producer.commit_transaction()

    def rows(self) -> dict[str, tuple[Decimal, int]]:
        """Of the results database: total and count by city."""
        with self.engine.connect() as connection:
            found = connection.execute(
                text("SELECT city, total, sales_count FROM city_totals WHERE generation = :number"),
                {"number": self.followed.number},
            )
            return {city: (total, count) for city, total, count in found}

    def apply_number(self) -> int:
        with self.engine.connect() as connection:
            number: int = connection.scalar(
                text("SELECT apply_number FROM generations WHERE pipeline = :pipeline AND number = :number"),
                {"pipeline": self.followed.pipeline.name, "number": self.followed.number},
            )
            return number

    def recreate_topic(self, kafka: KafkaSettings) -> None:
        client = admin(kafka)
        client.delete_topics([self.topic])[self.topic].result()
        topic = GenerationTopics(self.followed.pipeline.name, self.followed.number).state
        # Deletion is asynchronous: until the old topic is gone, it cannot be created.
        for attempt in Retrying(
            retry=retry_if_exception_type((KafkaException, AssertionError)),
            stop=stop_after_delay(60),
            reraise=True,
        ):
            with attempt:
                ensure_topics(kafka, [replace(topic, partitions=self.followed.partitions)])
                assert describe_topics(kafka, [self.topic])[self.topic][0] != self.followed.topic_id


Make = Callable[..., GenerationFixture]


class Public:
    """A reader of the public topic, as an outsider would be one."""

    def __init__(self, stack: Embedded, pipeline: Pipeline) -> None:
        self._topic = pipeline.output
        self._codec = Registry(stack.kafka).codec(self._topic.subject, load(self._topic.schema))
        self._consumer = consumer(stack.kafka, "outsider", subscribed=False)
        self._consumer.assign([TopicPartition(self._topic.name, p, 0) for p in range(self._topic.partitions)])
        self.records: list[tuple[str, Any]] = []

    def poll(self) -> list[tuple[str, Any]]:
        for message in self._consumer.consume(1000, 0.05):
            if message.error() is None:
                value = message.value()
                self.records.append(
                    ((message.key() or b"").decode(), None if value is None else self._codec.decode(value))
                )
        return self.records

    def truth(self) -> dict[str, str]:
        """What compaction leaves: total by city."""
        shown: dict[str, str] = {}
        for key, value in self.poll():
            city = key.split("|")[2]
            shown.pop(city, None)
            if value is not None:
                shown[city] = str(value["total"])
        return shown

    def until(self, expected: dict[str, str], died: Sequence[BaseException] = ()) -> None:
        """Wait for the truth; raises the publisher's error instead of a timeout if it died."""

        def is_expected() -> bool:
            if self.truth() == expected:
                return True
            if died:
                raise died[0]
            return False

        wait_until(is_expected, TIMEOUT_SECONDS, lambda: f"{expected}: {self.truth()}", poll_seconds=0.0)

    def close(self) -> None:
        self._consumer.close()


def publishing(
    kafka: KafkaSettings, results: ResultsDbSettings, lineage: Emitter = NULL_EMITTER
) -> AbstractContextManager[list[BaseException]]:
    """The publisher process in a thread; what it died of is in the list."""
    return collecting(lambda stop: run(kafka, results, stop, lineage))
