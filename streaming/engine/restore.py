"""Reading progress and state back for a newly assigned partition, before anything is consumed from it.

Order is what makes it right: the group's stable committed offsets first, so that no transaction of a former owner is
open any more; then the end offsets with READ_UNCOMMITTED; then reading with read_committed until the position has
reached them, by messages or by the offset that an end-of-partition event carries. It runs in a thread of its own:
partitions that are being restored are paused, the others go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from prometheus_client import Counter, Gauge

from kafka_client.clients import committed_offsets
from kafka_client.error_codes import is_lost
from kafka_client.errors import ALIEN, Fatal
from kafka_client.offsets import ask_ends
from kafka_client.reader import advance
from kafka_client.registry import Codec
from kafka_client.watchdog import watching
from kafka_client.writer_schemas import LostSchema, Undecodable
from observability import logs
from observability.waits import WAITS, Cancelled
from streaming.engine.progress import Progress, progress_key
from streaming.engine.state import StateStore

# A response takes milliseconds; without one the request is repeated.
REQUEST_SECONDS = 5.0
# A dead owner's transaction runs out after 5 s, so the wait for stable offsets asks this often.
RETRY_SECONDS = 0.2
# Every commit writes the progress of all partitions of its worker, so the newest is among the last records unless that
# worker rested while others went on; then the topic is read from its beginning.
TAIL = 2_000
BATCH = 10_000
# Longer than a transaction may be open: something else is wrong, and is logged.
SLOW_SECONDS = 15.0
# Then a consumer without responses is replaced; longer than a transaction of a dead owner holds it back.
PATIENCE_SECONDS = 20.0
# The end-of-partition event comes after an empty fetch.
READING = {"fetch.wait.max.ms": 20}

RESTORED = Counter(
    "electrored_restore_records_total", "Records read back from state and progress topics", ["flow"]
)

RESTORING = Gauge(
    "electrored_restore_remaining_offsets",
    "Of the topic that is being read back: offsets up to its end; 0 when all is read",
    ["flow"],
)

_log = logs.get(__name__)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Positions:
    """Where a step's positions are kept. `start_offsets`: where it begins without one."""

    flow: str
    step: str
    group_id: str
    input_topic: str
    input_topic_id: str
    progress_topic: str
    start_offsets: Mapping[int, int]


@dataclass(frozen=True)
class State:
    """The state topic and its local store, for a step that has state."""

    topic: str
    store: StateStore


class Restorer:
    """Restores partitions one after the other in a thread; `submit` returns the progress as a future."""

    def __init__(
        self,
        positions: Positions,
        codec: Codec,
        make_admin: Callable[[], AdminClient],
        make_consumer: Callable[[Mapping[str, Any]], Consumer],
        state: State | None = None,
    ) -> None:
        self._at = positions
        self._codec = codec
        self._make_admin = make_admin
        self._admin = make_admin()
        self._make_consumer = make_consumer
        self._consumer = make_consumer(READING)
        self._state = state
        self._known: set[str] = set()
        RESTORED.labels(positions.flow).inc(0)
        RESTORING.labels(positions.flow).set(0)
        # Records that were read back so far, which shows a waiting caller that it moves.
        self.records = 0
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"restore-{positions.flow}")

    def submit(self, partition: int) -> Future[Progress]:
        return self._thread.submit(self.restore, partition)

    def close(self) -> None:
        self._stopping.set()
        self._thread.shutdown(cancel_futures=True)
        self._consumer.close()

    def restore(self, partition: int) -> Progress:
        """Progress of the input partition, its state in the local store. Raises Fatal where going on could double."""
        committed = self._committed(partition)
        wanted = [TopicPartition(self._at.progress_topic, 0)]
        if self._state is not None:
            wanted.append(TopicPartition(self._state.topic, partition))
        ends = self._ends(wanted)
        progress = self._decide(
            partition, committed, self._progress(partition, ends[self._at.progress_topic])
        )
        if self._state is not None:
            self._catch_up(self._state, partition, ends[self._state.topic])
        return progress

    def _decide(self, partition: int, committed: int | None, progress: Progress | None) -> Progress:
        """Progress decides, the committed offset is the fence.

        Without a committed offset progress stands: Kafka forgets the offsets of a group that rested for a week.
        A committed offset without progress, or another one, means that one of them is not of this generation.
        """
        place = f"{self._at.input_topic} partition {partition} in group {self._at.group_id}"
        if progress is None:
            if committed is None:
                return Progress(next_offset=self._at.start_offsets[partition])
            raise Fatal(
                f"{place}: offset {committed} is committed but {self._at.progress_topic} has no progress"
            )
        if committed is not None and committed != progress.next_offset:
            raise Fatal(f"{place}: offset {committed} is committed but progress is at {progress.next_offset}")
        return progress

    def _committed(self, partition: int) -> int | None:
        """The group's offset once no transaction over it is open; None if it has none."""

        def ask() -> int | None:
            topic = self._at.input_topic
            return committed_offsets(self._consumer, topic, [partition], REQUEST_SECONDS).get(partition)

        return self._asked(f"committed offset of {self._at.input_topic} partition {partition}", ask)

    def _ends(self, wanted: Sequence[TopicPartition]) -> dict[str, int]:
        """End offsets by topic, open transactions included."""

        def ask() -> dict[str, int]:
            futures = ask_ends(self._admin, wanted)
            return {place.topic: int(future.result().offset) for place, future in futures.items()}

        return self._asked("end offsets", ask)

    def _asked(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """The broker's response; the request is repeated while it fails with a retriable error."""
        warn_at = time.monotonic() + SLOW_SECONDS
        renew_at = time.monotonic() + PATIENCE_SECONDS
        while not self._stopping.is_set():
            try:
                answer = ask()
            except KafkaException as error:
                if is_lost(error.args[0]):
                    raise Fatal(f"{self._at.flow}: {what}: {error.args[0].str()}") from error
                if error.args[0].code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                    # After a broker's restart a client may get no responses any more: it keeps stale leaders and
                    # coordinators, while other clients get theirs.
                    self._admin = self._make_admin()
                    if time.monotonic() > renew_at:
                        self._renew(what)
                        renew_at = time.monotonic() + PATIENCE_SECONDS
                if time.monotonic() > warn_at:
                    _log.warning(
                        "waiting for Kafka", flow=self._at.flow, what=what, reason=error.args[0].str()
                    )
                    warn_at = time.monotonic() + SLOW_SECONDS
                    self._wait(f"Kafka does not return the {what}: {error.args[0].str()}")
            else:
                self._waited()
                return answer
            self._stopping.wait(RETRY_SECONDS)
        self._waited()
        raise Cancelled

    def _wait(self, detail: str) -> None:
        WAITS.begin("kafka", detail, f"{self._at.flow}, restoring")

    def _waited(self) -> None:
        WAITS.end("kafka", f"{self._at.flow}, restoring")

    def _renew(self, what: str) -> None:
        """Replace a consumer that gets no responses."""
        _log.warning("consumer is renewed", flow=self._at.flow, what=what)
        self._known.clear()
        with watching(self._at.flow):
            self._consumer.close()
        self._consumer = self._make_consumer(READING)

    def _progress(self, partition: int, end: int) -> Progress | None:
        """The newest progress record of this step and partition."""
        key = progress_key(self._at.step, self._at.input_topic, partition)
        starts = [end - TAIL, OFFSET_BEGINNING] if end > TAIL else [OFFSET_BEGINNING]
        for start in starts:
            newest: bytes | None = None
            for messages, _ in self._read(self._at.progress_topic, 0, start, end):
                for message in messages:
                    newest = message.value() if message.key() == key else newest
            if newest is not None:
                try:
                    record = self._codec.decode(newest)
                except LostSchema as error:
                    raise Fatal(str(error)) from error
                except Undecodable as error:
                    raise Fatal(
                        f"{self._at.progress_topic} holds under {key.decode()} what no step wrote ({error}): {ALIEN}"
                    ) from error
                if record["topic_id"] != self._at.input_topic_id:
                    raise Fatal(
                        f"progress of {key.decode()} is of topic id {record['topic_id']}, "
                        f"the generation reads {self._at.input_topic_id}"
                    )
                return Progress.from_record(record)
        return None

    def _catch_up(self, state: State, partition: int, end: int) -> None:
        """Bring the local store to the end of the state topic; what it has already is not read again."""
        store = state.store.open(partition, end)
        start = store.next_offset or OFFSET_BEGINNING
        records = 0
        for messages, position in self._read(state.topic, partition, start, end):
            values = ((m.key(), m.value()) for m in messages)
            store.write(((k, v) for k, v in values if k is not None and v is not None), position)
            records += len(messages)
        _log.info("state is read back", flow=self._at.flow, partition=partition, records=records, end=end)

    def _read(self, topic: str, partition: int, start: int, end: int) -> Iterator[tuple[list[Message], int]]:
        """Committed records from `start` until the position has reached `end`, with the position after each batch."""
        position = max(0, start)
        warn_at = time.monotonic() + SLOW_SECONDS
        if position >= end:
            return
        self._assign(topic, partition, start)
        moved_at = time.monotonic()
        while position < end:
            if self._stopping.is_set():
                self._waited()
                raise Cancelled
            positions = {partition: position}
            records, position = self._taken(topic, positions), positions[partition]
            if records or position >= end:
                RESTORED.labels(self._at.flow).inc(len(records))
                RESTORING.labels(self._at.flow).set(max(0, end - position))
                self.records += len(records)
                yield records, position
                moved_at = time.monotonic()
                self._waited()
            elif time.monotonic() > moved_at + PATIENCE_SECONDS:
                self._renew(f"{topic} partition {partition}")
                # A log may begin later than at 0.
                self._assign(topic, partition, position or start)
                moved_at = time.monotonic()
            if time.monotonic() > warn_at:
                _log.warning(
                    "reading back waits", flow=self._at.flow, topic=topic, position=position, end=end
                )
                warn_at = time.monotonic() + SLOW_SECONDS
                if time.monotonic() > moved_at + SLOW_SECONDS:
                    where = f"{topic} partition {partition} stands at {position} of {end}"
                    self._wait(f"reading back {where}: is a transaction open there?")
        self._consumer.unassign()

    def _assign(self, topic: str, partition: int, start: int) -> None:
        if topic not in self._known:
            # Once it has asked for committed offsets, librdkafka looks for an unknown leader only after a second.
            self._asked(f"leader of {topic}", lambda: self._consumer.list_topics(topic, REQUEST_SECONDS))
            self._known.add(topic)
        self._consumer.assign([TopicPartition(topic, partition, start)])

    def _taken(self, topic: str, positions: dict[int, int]) -> list[Message]:
        try:
            return advance(self._consumer.consume(BATCH, 0.1), positions)
        except KafkaException as error:
            where = ", ".join(f"partition {number} from {at}" for number, at in positions.items())
            raise Fatal(f"{topic} {where} cannot be read: {error.args[0].str()}") from error
