"""Watermarks of combine's input: the frontiers of the sources, once they were consumed here.

A worker that has read frontier f and then consumed a partition beyond the end offset that it fetched after that, open
transactions included, has seen every event recorded up to f there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import Gauge

from contracts.times import EPOCH
from kafka_client.errors import Fatal
from kafka_client.offsets import Asked, ask_ends
from kafka_client.reader import take
from kafka_client.registry import Codec
from kafka_client.writer_schemas import LostSchema, Undecodable
from observability import logs
from streaming.engine.loop import Loop, Punctuator

# Sources publish about once a second.
INTERVAL_SECONDS = 1.0
# Frontiers that wait for a partition that is behind. A minute of them is fine enough for a long backlog.
MOST_WAITING = 60
BATCH = 10_000

WATERMARK = Gauge(
    "electrored_watermark_timestamp_seconds",
    "Everything recorded up to it was consumed from the partition",
    ["flow", "partition"],
)

_log = logs.get(__name__)


@dataclass(frozen=True)
class Target:
    """A partition consumed up to its offset here is complete up to the frontier."""

    frontier: datetime
    ends: dict[int, int]


class Frontiers:
    """The newest frontiers of the sources that write a log, from the compacted topic of all positions."""

    def __init__(
        self, consumer: Consumer, topic: str, codec: Codec, end: int, sources: Mapping[str, bool]
    ) -> None:
        """`end`: the topic's end at the start; before it is reached a source's position may be unread.

        `sources`: by name, whether it publishes its frontier all the time; there is no watermark before its first one.
        """
        self._sources = sources
        self._keys = {name.encode() for name in sources}
        self._consumer = consumer
        self._topic = topic
        self._codec = codec
        self._end = end
        self._positions = {0: 0}
        self._newest: dict[str, datetime | None] = {}
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])

    def read(self) -> datetime | None:
        """The minimum over the sources; None while it is not known. Does not wait."""
        values: dict[bytes, list[bytes]] = {}
        try:
            while messages := take(self._consumer, self._positions, 0, BATCH):
                for message in messages:
                    key, value = message.key(), message.value()
                    # Other keys are of other sources, or foreign.
                    if key in self._keys and value is not None:
                        values.setdefault(key, []).append(value)
        except KafkaException as error:
            raise Fatal(f"{self._topic} cannot be read: {error.args[0].str()}") from error
        for key, of_key in values.items():
            branch, record = self._newest_of(key, of_key)
            if branch == "electrored.SourcePosition" and record["source"] == key.decode():
                self._newest[record["source"]] = record["frontier"]
        frontiers = [frontier for frontier in self._newest.values() if frontier is not None]
        no_progress = any(always and name not in self._newest for name, always in self._sources.items())
        if self._positions[0] < self._end or no_progress or not frontiers or min(frontiers) <= EPOCH:
            return None
        return min(frontiers)

    def _newest_of(self, key: bytes, values: list[bytes]) -> tuple[str, dict[str, Any]]:
        """The newest record; a foreign value is skipped, and the source stays where it was before."""
        for value in reversed(values):
            try:
                branch, record = self._codec.decode(value)
            except LostSchema as error:
                raise Fatal(str(error)) from error
            except Undecodable as error:
                _log.warning(
                    "a record is passed over: only sources may write there",
                    topic=self._topic,
                    key=key.decode(errors="backslashreplace"),
                    reason=str(error),
                )
            else:
                return branch, record
        return "", {}

    def close(self) -> None:
        self._consumer.close()


class Watermarks(Punctuator):
    """Passes the watermark of each partition to combine about once a second, idle or not."""

    def __init__(self, frontiers: Frontiers, admin: AdminClient) -> None:
        self._frontiers = frontiers
        self._admin = admin
        self._asked_at = 0.0
        self._asked: tuple[datetime, Asked] | None = None
        self._waiting: deque[Target] = deque()
        self._reached: dict[int, datetime] = {}
        # What the metrics show, and of which loop.
        self._flow = ""
        self._shown: dict[int, datetime] = {}

    def punctuate(self, loop: Loop) -> None:
        self._ask(loop)
        self._take_answer()
        self._reach(loop)

    def close(self, loop: Loop) -> None:
        self._frontiers.close()
        self._show(self._flow, {})

    def _ask(self, loop: Loop) -> None:
        now = time.monotonic()
        full = len(self._waiting) >= MOST_WAITING
        if self._asked is not None or full or not loop.ready or now - self._asked_at < INTERVAL_SECONDS:
            return
        self._asked_at = now
        frontier = self._frontiers.read()
        if frontier is None:
            return
        places = [TopicPartition(loop.step.input_topic, partition) for partition in sorted(loop.ready)]
        # Only now, after the frontier was read: an event recorded before it is below these ends.
        futures = ask_ends(self._admin, places)
        self._asked = frontier, futures

    def _take_answer(self) -> None:
        if self._asked is None or not all(future.done() for future in self._asked[1].values()):
            return
        frontier, futures = self._asked
        self._asked = None
        try:
            ends = {place.partition: int(future.result().offset) for place, future in futures.items()}
        except KafkaException as error:
            _log.warning("end offsets are asked for again", reason=error.args[0].str())
            return
        self._waiting.append(Target(frontier, ends))

    def _reach(self, loop: Loop) -> None:
        """Pass on the frontiers that were consumed. A partition that was assigned later waits for the next one."""
        ready = loop.ready
        while self._waiting:
            target = self._waiting[0]
            for partition, end in list(target.ends.items()):
                if partition not in ready:
                    del target.ends[partition]
                elif loop.consumed(partition) >= end:
                    del target.ends[partition]
                    loop.step.watermark(partition, target.frontier)
                    self._reached[partition] = target.frontier
            if target.ends:
                break
            self._waiting.popleft()
        self._show(loop.flow, {p: at for p, at in self._reached.items() if p in ready})

    def _show(self, flow: str, reached: Mapping[int, datetime]) -> None:
        for partition in self._shown.keys() - reached.keys():
            WATERMARK.remove(flow, str(partition))
        for partition, at in reached.items():
            if self._shown.get(partition) != at:
                WATERMARK.labels(flow, partition).set(at.timestamp())
        self._flow, self._shown = flow, dict(reached)
