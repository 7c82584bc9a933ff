"""State topics → results database: every live generation's totals as rows, as soon as they are committed."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from confluent_kafka import Message
from sqlalchemy import Engine

from contracts.registry import Registry
from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import GenerationTopics
from observability import logs
from observability.metrics import EVENTS, LAG
from streaming.barriers import STANDING_SECONDS, Barriers, Reports
from streaming.engine.schemas import PatientRegistry
from streaming.sink.followed import Followed, live
from streaming.sink.following import Follower, connect, follow, retried
from streaming.sink.rows import Rows
from streaming.sink.state_topic import POLL_SECONDS, Batch, Reader, check

# A topic made anew is noticed by its offsets at once, or by this check of its id.
CHECK_SECONDS = 10.0

# From the beginning of one transaction to that of the next: what came meanwhile shares it.
PAUSE_SECONDS = 0.02

_log = logs.get(__name__)


class StateSink:
    """Follows one generation's state topic and keeps its rows."""

    def __init__(
        self,
        kafka: KafkaSettings,
        engine: Engine,
        registry: Registry,
        followed: Followed,
        barriers: Barriers | None = None,
    ) -> None:
        self._kafka = kafka
        self._barriers = barriers
        self._reports = None if barriers is None else Reports(barriers, followed.number, "sink")
        self._followed = followed
        self._rows = Rows(engine, followed)
        topics = GenerationTopics(followed.pipeline.name, followed.number)
        self._codec = registry.codec(topics.state.subject, followed.pipeline.state_schema())
        self._reader = Reader(kafka, followed.topic, topics.group_id("sink"))
        self._applied: dict[int, int] = {}

    def run(self, stop: threading.Event) -> None:
        """Follow until told to stop. Raises Fatal when a person has to look."""
        flow = f"{self._followed.pipeline.name}.g{self._followed.number}.sink"
        lag = LAG.labels(flow)
        with self._reader as reader, ExitStack() as leaving:
            # What is followed no more is not behind either.
            leaving.callback(LAG.remove, flow)
            checked = partial(check, self._kafka, self._followed)
            retried(checked, stop)
            self._applied = retried(self._rows.open, stop)
            reader.assign(self._applied)
            _log.info("following", generation=str(self._followed), positions=self._applied)
            check_at = time.monotonic() + CHECK_SECONDS
            while not stop.is_set():
                messages = reader.take(self._patience())
                began = time.monotonic()
                if messages:
                    retried(partial(self._apply, messages), stop)
                    EVENTS.labels(flow).inc(len(messages))
                self._report()
                lag.set(reader.lag())
                if messages:
                    stop.wait(max(0.0, began + PAUSE_SECONDS - time.monotonic()))
                if time.monotonic() > check_at:
                    retried(checked, stop)
                    check_at = time.monotonic() + CHECK_SECONDS

    def _patience(self) -> float:
        """Live traffic waits while a barrier stands."""
        followed = self._followed
        if self._barriers is None or not self._barriers.standing(followed.pipeline.name, followed.number):
            return POLL_SECONDS
        return STANDING_SECONDS

    def _report(self) -> None:
        """Tell a barrier how far the rows are; ends of partitions count, which only hold transactions' markers."""
        followed = self._followed
        if self._barriers is None or self._reports is None:
            return
        barrier = self._barriers.standing(followed.pipeline.name, followed.number)
        if barrier is not None and barrier.targets:
            self._reports.tell(barrier, self._reader.positions)

    def _apply(self, messages: Sequence[Message]) -> None:
        """What was read since the last time into the database, in one transaction."""
        batch = Batch.of(messages)
        rows = self._followed.pipeline.rows
        following = dict(self._reader.positions)
        self._rows.apply(
            [row for value in batch.totals.values() for row in rows(self._decode(value))],
            {partition: self._decode(value)["watermark"] for partition, value in batch.watermarks.items()},
            self._applied,
            following,
        )
        self._applied = following

    def _decode(self, value: bytes) -> dict[str, Any]:
        """The fields of a total or of a watermark."""
        _, fields = self._codec.decode(value)
        return dict(fields)


def run(kafka: KafkaSettings, results: ResultsDbSettings, stop: threading.Event) -> None:
    """Follow every live generation, the ones to come included, until told to stop.

    Raises Fatal when going on could overwrite newer rows, or needs a person.
    """
    engine = connect(results, "electrored-sink")
    registry = PatientRegistry(kafka, stop)

    barriers = Barriers(engine)

    def sink(followed: Followed) -> Follower:
        return lambda stop: StateSink(kafka, engine, registry, followed, barriers).run(stop)

    def wanted() -> dict[Followed, Follower]:
        with engine.connect() as connection:
            return {followed: sink(followed) for followed in live(connection)}

    barriers.start()
    try:
        follow(wanted, stop)
    finally:
        barriers.stop()
        engine.dispose()
