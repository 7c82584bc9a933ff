"""State topics → results database: every live generation's totals as rows, as soon as they are committed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from prometheus_client import Histogram
from sqlalchemy import Engine

from contracts import datasets
from contracts.settings import KafkaSettings, ResultsDbSettings
from contracts.topics import GenerationTopics
from kafka_client.errors import Fatal
from kafka_client.registry import Registry
from lineage.consumer import LineageConsumer
from lineage.emitter import NULL_EMITTER, Emitter
from lineage.model import Job
from observability import logs
from observability.metrics import EVENTS
from observability.progress_report import ProgressReport
from observability.supervision import supervise
from streaming import lineage as lineage_of
from streaming.engine.schemas import PatientRegistry
from streaming.generations.barriers import STANDING_SECONDS, BarrierReports, Barriers
from streaming.generations.catalog import LIVE, load
from streaming.generations.following import Follower, follow
from streaming.results_db import connect, retried
from streaming.sink.rows import Rows
from streaming.sink.state_topic import (
    CHECK_SECONDS,
    POLL_SECONDS,
    Batch,
    Progress,
    Reader,
    check,
    decoded,
)
from streaming.sink.targets import GenerationRow, SinkTarget, live

# From the beginning of one transaction to that of the next: what came meanwhile shares it.
PAUSE_SECONDS = 0.02
# Between attempts at a generation that nobody is shown; a topic that vanished does not come back, a broker does.
AGAIN_SECONDS = (1.0, 5.0, 15.0, 60.0)
# What failed after so long had begun well, and is another failure.
STEADY_SECONDS = 300.0
# Who ends waits no longer for the follower of lineage, which loses nothing.
KEEPER_SECONDS = 3.0

LATENCY = Histogram(
    "electrored_end_to_end_latency_seconds",
    "From the commit at the source to the commit of the row that counts it; the oldest event of each commit",
    ["flow"],
    buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 300, 3600),
)

_log = logs.get(__name__)


def tell(flow: str, rows: int, oldest_micros: int | None, committed_at: float) -> None:
    """Count a commit: its rows, and how long the oldest event that they count took, by two clocks that may differ.

    `oldest_micros` is the commit at the source, in microseconds of the Unix epoch, `committed_at` ours, in seconds.
    """
    EVENTS.labels(flow).inc(rows)
    if oldest_micros is not None:
        LATENCY.labels(flow).observe(max(0.0, committed_at - oldest_micros / 1_000_000))


class StateSink:
    """Follows one generation's state topic and keeps its rows."""

    def __init__(
        self,
        kafka: KafkaSettings,
        engine: Engine,
        registry: Registry,
        followed: SinkTarget,
        barriers: Barriers | None = None,
    ) -> None:
        self._kafka = kafka
        self._barriers = barriers
        self._reports = None if barriers is None else BarrierReports(barriers, followed.number, "sink")
        self._followed = followed
        self._rows = Rows(engine, followed)
        topics = GenerationTopics(followed.pipeline.name, followed.number)
        self._codec = registry.codec(topics.state.subject, followed.pipeline.state_schema())
        self._reader = Reader(kafka, followed.topic, topics.group_id("sink"))
        self._progress = Progress(followed.partitions)

    def facts(self) -> ProgressReport:
        """How far it is; may be asked from any thread."""
        return self._progress.facts("sink", datasets.table(self._followed.pipeline.table))

    def run(self, stop: threading.Event) -> None:
        """Follow until told to stop. Raises Fatal when a person has to look."""
        flow = f"{self._followed.pipeline.name}.g{self._followed.number}.sink"
        with self._reader as reader, ExitStack() as leaving:
            leaving.callback(reader.hide_lag, flow)
            checked = partial(check, self._kafka, self._followed)
            retried(checked, stop)
            self._progress.positions = retried(self._rows.open, stop)
            reader.assign(self._progress.positions)
            # From 0 on, or an increase would not count the first.
            EVENTS.labels(flow)
            LATENCY.labels(flow)
            _log.info("following", generation=str(self._followed), positions=self._progress.positions)
            check_at = time.monotonic() + CHECK_SECONDS
            while not stop.is_set():
                messages = reader.take(self._patience())
                began = time.monotonic()
                if messages:
                    batch = Batch.of(messages)
                    rows = retried(partial(self._apply, batch), stop)
                    self._progress.read += len(messages)
                    tell(flow, rows, batch.oldest_micros, time.time())
                self._report()
                reader.show_lag(flow)
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

    def _apply(self, batch: Batch) -> int:
        """What was read since the last time into the database, in one transaction; gives how many rows."""
        rows = self._followed.pipeline.rows
        following = dict(self._reader.positions)
        made = [row for value in batch.totals.values() for row in rows(self._decode(value))]
        marks = {partition: self._decode(value)["watermark"] for partition, value in batch.watermarks.items()}
        self._rows.apply(made, marks, self._progress.positions, following)
        self._progress.positions = following
        self._progress.written += len(made)
        self._progress.note(marks)
        return len(made)

    def _decode(self, value: bytes) -> dict[str, Any]:
        """The fields of a total or of a watermark."""
        return decoded(self._codec, self._followed.topic, value)


def run(
    kafka: KafkaSettings, results: ResultsDbSettings, stop: threading.Event, lineage: Emitter = NULL_EMITTER
) -> None:
    """Follow every live generation, the ones to come included, until told to stop.

    Raises Fatal when going on with an active one could overwrite newer rows, or needs a person.
    """
    engine = connect(results, "electrored-sink")
    registry = PatientRegistry(kafka, stop)

    barriers = Barriers(engine)

    def follower(entry: GenerationRow) -> Follower:
        def work(left: threading.Event) -> None:
            followed = entry.followed()
            made = StateSink(kafka, engine, registry, followed, barriers)
            job = partial(lineage_of.sink, followed.pipeline, followed.number)
            with lineage.run(job, made.facts):
                made.run(left)

        return lambda left: kept_following(engine, entry, lambda: work(left), left)

    def wanted() -> dict[GenerationRow, Follower]:
        with engine.connect() as connection:
            return {entry: follower(entry) for entry in live(connection)}

    barriers.start()
    # The tables that it fills are shown by views, which nobody else would tell of.
    for name in datasets.view_names():
        with lineage.run(partial(_shown, name)):
            pass
    keeper = LineageConsumer(kafka, engine, stop)
    keeper.start()
    try:
        follow(wanted, stop)
    finally:
        barriers.stop()
        # It may be waiting for a broker that is away.
        keeper.join(KEEPER_SECONDS)
        engine.dispose()


def _shown(view: str) -> Job:
    # In the thread that tells: it reads the views' SQL, which the sink's start need not wait for.
    from streaming.view_columns import shown

    return shown(view)


def kept_following(
    engine: Engine, entry: GenerationRow, work: Callable[[], None], stop: threading.Event
) -> None:
    """Do the work until told to stop, again after a while if it fails: that is no reason to leave the others.

    Raises what ended the work of the active one, which is what people look at.
    """
    logged = ""

    def on_failure(error: Exception, failures: int) -> bool:
        # A defect of a new version too, as in a worker.
        nonlocal logged
        state = retried(lambda: load(engine, entry.name, entry.number), stop).state
        if state == "active":
            raise error
        if state not in LIVE:
            return False
        reason = str(error) if isinstance(error, Fatal) else repr(error)
        if reason != logged or not failures:
            _log.error(
                "a generation that is not served is not written; retire it, or mend it",
                generation=str(entry),
                state=state,
                reason=reason,
                exc_info=None if isinstance(error, Fatal) else error,
            )
        logged = reason
        return True

    supervise(work, stop, AGAIN_SECONDS, on_failure, steady_seconds=STEADY_SECONDS)
