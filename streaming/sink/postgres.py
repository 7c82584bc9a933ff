"""State topics → results database: every live generation's totals as rows, as soon as they are committed."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Engine

from contracts.registry import Codec, Registry
from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import GenerationTopics
from observability import logs
from observability.metrics import EVENTS, LAG
from streaming.sink.followed import Followed, live
from streaming.sink.following import Follower, connect, follow, retried
from streaming.sink.rows import Rows
from streaming.sink.state_topic import Batch, StateReader

# An empty wait this long ends to see whether to stop.
POLL_SECONDS = 0.5
# A topic made anew is noticed by its offsets at once, or by this check of its id.
CHECK_SECONDS = 10.0

_log = logs.get(__name__)


class StateSink:
    """Follows one generation's state topic and keeps its rows."""

    def __init__(self, kafka: KafkaSettings, engine: Engine, registry: Registry, followed: Followed) -> None:
        self.followed = followed
        self._rows = Rows(engine, followed)
        topics = GenerationTopics(followed.pipeline.name, followed.number)
        self._codec: Codec = registry.codec(f"{followed.topic}-value", followed.pipeline.state_schema())
        self._reader = StateReader(kafka, followed, topics.group_id("sink"))
        self._applied: dict[int, int] = {}

    def run(self, stop: threading.Event) -> None:
        """Follow until told to stop. Raises Fatal when a person has to look."""
        flow = f"{self.followed.pipeline.name}.g{self.followed.number}.sink"
        with self._reader as reader:
            self._applied = retried(self._rows.open, stop)
            retried(partial(reader.start, self._applied), stop)
            _log.info("following", generation=str(self.followed), positions=self._applied)
            checked_at = time.monotonic()
            while not stop.is_set():
                batch = reader.take(POLL_SECONDS)
                if batch.records:
                    retried(partial(self.apply, batch), stop)
                    EVENTS.labels(flow).inc(batch.records)
                if time.monotonic() - checked_at > CHECK_SECONDS:
                    retried(reader.check, stop)
                    checked_at = time.monotonic()
                LAG.labels(flow).set(reader.lag())

    def apply(self, batch: Batch) -> int | None:
        """One batch into the database, in one transaction; gives its apply number."""
        following = dict(self._reader.positions)
        number = self._rows.apply(
            [self._decode(value) for value in batch.totals.values()],
            {partition: self._watermark(value) for partition, value in batch.watermarks.items()},
            self._applied,
            following,
        )
        self._applied = following
        return number

    def _decode(self, value: bytes) -> dict[str, Any]:
        total: dict[str, Any] = self._codec.decode(value)[1]
        return total

    def _watermark(self, value: bytes) -> datetime:
        watermark: datetime = self._codec.decode(value)[1]["watermark"]
        return watermark


def run(kafka: KafkaSettings, results: ResultsDbSettings, stop: threading.Event) -> None:
    """Follow every live generation, the ones to come included, until told to stop.

    Raises Fatal when going on could overwrite newer rows, or needs a person.
    """
    engine = connect(results, "electrored-sink")
    registry = Registry(kafka)

    def sink(followed: Followed) -> Follower:
        return lambda stop: StateSink(kafka, engine, registry, followed).run(stop)

    def wanted() -> dict[Followed, Follower]:
        with engine.connect() as connection:
            return {followed: sink(followed) for followed in live(connection)}

    follow(wanted, stop)
    engine.dispose()
