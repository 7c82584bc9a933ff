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
from lineage.consumer import consume
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
from streaming.generations.following import ThreadTarget, supervise_threads
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
# Between attempts at a generation that is not served; a deleted topic does not come back, a broker does.
AGAIN_SECONDS = (1.0, 5.0, 15.0, 60.0)
# A failure after so long counts as the first.
STEADY_SECONDS = 300.0
# On shutdown: wait this long for the lineage consumer, which loses nothing.
CONSUMER_SECONDS = 3.0

LATENCY = Histogram(
    "electrored_end_to_end_latency_seconds",
    "From the commit at the source to the commit of the row that counts it; the oldest event of each commit",
    ["flow"],
    buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 300, 3600),
)

_log = logs.get(__name__)


def count_commit(flow: str, rows: int, oldest_micros: int | None, committed_at: float) -> None:
    """Count a commit: its rows, and how long the oldest event that they count took, by two clocks that may differ.

    `oldest_micros` is the commit at the source, in microseconds of the Unix epoch, `committed_at` ours, in seconds.
    """
    EVENTS.labels(flow).inc(rows)
    if oldest_micros is not None:
        LATENCY.labels(flow).observe(max(0.0, committed_at - oldest_micros / 1_000_000))


class StateSink:
    """Writes one generation's state topic to its rows."""

    def __init__(
        self,
        kafka: KafkaSettings,
        engine: Engine,
        registry: Registry,
        target: SinkTarget,
        barriers: Barriers | None = None,
    ) -> None:
        self._kafka = kafka
        self._barriers = barriers
        self._reports = None if barriers is None else BarrierReports(barriers, target.number, "sink")
        self._target = target
        self._rows = Rows(engine, target)
        topics = GenerationTopics(target.pipeline.name, target.number)
        self._codec = registry.codec(topics.state.subject, target.pipeline.state_schema())
        self._reader = Reader(kafka, target.topic, topics.group_id("sink"))
        self._progress = Progress(target.partitions)

    def report(self) -> ProgressReport:
        """The progress; thread-safe."""
        return self._progress.report("sink", datasets.table(self._target.pipeline.table))

    def run(self, stop: threading.Event) -> None:
        """Write until `stop`. Raises Fatal for what needs a person."""
        flow = f"{self._target.pipeline.name}.g{self._target.number}.sink"
        with self._reader as reader, ExitStack() as leaving:
            leaving.callback(reader.hide_lag, flow)
            checked = partial(check, self._kafka, self._target)
            retried(checked, stop)
            self._progress.positions = retried(self._rows.open, stop)
            reader.assign(self._progress.positions)
            # From 0 on, or an increase would not count the first.
            EVENTS.labels(flow)
            LATENCY.labels(flow)
            _log.info("following", generation=str(self._target), positions=self._progress.positions)
            check_at = time.monotonic() + CHECK_SECONDS
            while not stop.is_set():
                messages = reader.take(self._patience())
                began = time.monotonic()
                if messages:
                    batch = Batch.of(messages)
                    rows = retried(partial(self._apply, batch), stop)
                    self._progress.read += len(messages)
                    count_commit(flow, rows, batch.oldest_micros, time.time())
                self._report_barrier()
                reader.show_lag(flow)
                if messages:
                    stop.wait(max(0.0, began + PAUSE_SECONDS - time.monotonic()))
                if time.monotonic() > check_at:
                    retried(checked, stop)
                    check_at = time.monotonic() + CHECK_SECONDS

    def _patience(self) -> float:
        """The poll timeout, shorter while a barrier pauses live traffic."""
        target = self._target
        if self._barriers is None or not self._barriers.standing(target.pipeline.name, target.number):
            return POLL_SECONDS
        return STANDING_SECONDS

    def _report_barrier(self) -> None:
        """Report the position of the rows to a barrier; transaction markers at the end of a partition count."""
        target = self._target
        if self._barriers is None or self._reports is None:
            return
        barrier = self._barriers.standing(target.pipeline.name, target.number)
        if barrier is not None and barrier.targets:
            self._reports.report(barrier, self._reader.positions)

    def _apply(self, batch: Batch) -> int:
        """Write what was read since the last call in one transaction; returns how many rows."""
        to_rows = self._target.pipeline.rows
        following = dict(self._reader.positions)
        rows = [row for value in batch.totals.values() for row in to_rows(self._decode(value))]
        marks = {partition: self._decode(value)["watermark"] for partition, value in batch.watermarks.items()}
        self._rows.apply(rows, marks, self._progress.positions, following)
        self._progress.positions = following
        self._progress.written += len(rows)
        self._progress.note(marks)
        return len(rows)

    def _decode(self, value: bytes) -> dict[str, Any]:
        """The fields of a total or of a watermark."""
        return decoded(self._codec, self._target.topic, value)


def run(
    kafka: KafkaSettings, results: ResultsDbSettings, stop: threading.Event, lineage: Emitter = NULL_EMITTER
) -> None:
    """Write every live generation, new ones included, until `stop`.

    Raises Fatal when going on with an active one could overwrite newer rows, or needs a person.
    """
    engine = connect(results, "electrored-sink")
    registry = PatientRegistry(kafka, stop)

    barriers = Barriers(engine)

    def thread_target(entry: GenerationRow) -> ThreadTarget:
        def work(left: threading.Event) -> None:
            target = entry.target()
            state_sink = StateSink(kafka, engine, registry, target, barriers)
            job = partial(lineage_of.sink, target.pipeline, target.number)
            with lineage.run(job, state_sink.report):
                state_sink.run(left)

        return lambda left: keep_writing(engine, entry, lambda: work(left), left)

    def wanted() -> dict[GenerationRow, ThreadTarget]:
        with engine.connect() as connection:
            return {entry: thread_target(entry) for entry in live(connection)}

    barriers.start()
    # The lineage of the views over its tables, which no other process emits.
    for name in datasets.view_names():
        with lineage.run(partial(_shown, name)):
            pass
    consumer = threading.Thread(
        target=consume, args=(kafka, engine, stop), name="lineage-consumer", daemon=True
    )
    consumer.start()
    try:
        supervise_threads(wanted, stop)
    finally:
        barriers.stop()
        # It may be waiting for a broker.
        consumer.join(CONSUMER_SECONDS)
        engine.dispose()


def _shown(view: str) -> Job:
    # In the emitter's thread: parsing the views' SQL must not delay the sink's start.
    from streaming.view_columns import shown

    return shown(view)


def keep_writing(
    engine: Engine, entry: GenerationRow, work: Callable[[], None], stop: threading.Event
) -> None:
    """Do the work until `stop`, retried with pauses if it fails: the other generations go on.

    Raises what ended the work of the active one.
    """
    logged = ""

    def on_failure(error: Exception, failures: int) -> bool:
        # Any exception: a new version may have a defect.
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
