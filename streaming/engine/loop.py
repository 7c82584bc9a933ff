"""The one loop of both steps: consume, add, and when it is due one transaction over all of it.

While little comes, a commit happens at once, 20 ms after the last one at the earliest; otherwise every 100 ms or 50,000
events: low load is low latency, high load is high throughput.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, Message, TopicPartition
from prometheus_client import Counter

from contracts.registry import Codec
from observability import logs
from observability.metrics import EVENTS, LAG
from streaming.engine.errors import Abortable, Fatal
from streaming.engine.failures import is_end, is_lost
from streaming.engine.progress import Progress, progress_key
from streaming.engine.restore import Positions, Restorer, State
from streaming.engine.step import Message as Record
from streaming.engine.step import Output, OutRecord, Step
from streaming.engine.transactions import Delivered, OutcomeUnknown, Transactions

# As much as one poll takes at most.
POLL_EVENTS = 50_000
# Wakes for what is periodic; a record wakes the loop at once.
IDLE_SECONDS = 0.2
# A restored partition is waited for more eagerly: it is what a restart's clock runs on.
RESTORING_SECONDS = 0.02
# Each attempt has waited for the broker already; what fails so often has a reason that does not go away.
MOST_FAILURES = 10
MEASURE_SECONDS = 1.0

DUPLICATES = Counter("electrored_duplicates_total", "Events dropped because they were seen before", ["flow"])
LATE = Counter(
    "electrored_late_total", "Events recorded after their window's end and grace; counted", ["flow"]
)
FUTURE = Counter(
    "electrored_future_total", "Events whose event time lies after their recording; counted", ["flow"]
)
DEAD = Counter("electrored_dead_letters_total", "Events that could not be taken", ["flow"])

_log = logs.get(__name__)


@dataclass(frozen=True)
class Pace:
    """When a loop commits. A poll takes all that has arrived: one that gave less than `trickle_events` shows that the
    input does not press, and then a commit is due at once.

    `pause_seconds` lie between the beginnings of two transactions: each costs some ten requests however little is in
    it, and a stream of single sales would fill the machine with them.
    """

    seconds: float
    events: int
    trickle_events: int
    pause_seconds: float


LIVE = Pace(seconds=0.1, events=50_000, trickle_events=1_000, pause_seconds=0.02)
# Nobody waits for a replay, and the fewer its commits, the shorter the partials that merge has to read.
REPLAY = Pace(seconds=2.0, events=200_000, trickle_events=0, pause_seconds=0.0)


class Attendant(ABC):
    """Something periodic that a loop does between polls."""

    @abstractmethod
    def attend(self, loop: Loop) -> None:
        """Do what is due, without waiting; answers are looked at in a later turn."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """The loop ends."""


@dataclass(frozen=True)
class Parts:
    """What a loop is made of; whoever makes it closes nothing, the loop does."""

    step: Step
    consumer: Consumer
    transactions: Transactions
    restorer: Restorer
    positions: Positions
    progress_codec: Codec
    state: State | None = None
    attendants: Sequence[Attendant] = ()
    pace: Pace = LIVE


class Loop:
    """Drives one step over the partitions that the group gives it."""

    def __init__(self, parts: Parts) -> None:
        self.step = parts.step
        self.flow = parts.positions.flow
        self.parts = parts
        self._consumer = parts.consumer
        self._at = parts.positions
        self._pace = parts.pace
        self._ready: set[int] = set()
        # Of those the ones that are being read; a held loop reads none, or up to the given offsets.
        self._reading: set[int] = set()
        self._limits: Mapping[int, int] | None = None
        self._restoring: dict[int, Future[Progress]] = {}
        self._ends: dict[int, int] = {}
        self._metadata: object = None
        # What the next turn has to set right first: consume again from the accepted progress, or read that back.
        self._rewind = False
        self._read_back = False
        self._rebalanced = False
        self._failures = 0
        self._events = 0
        self._filling_since = 0.0
        self._committed_at = 0.0
        self._measured_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises Fatal, after which a new process has to go on."""
        self.join()
        try:
            while not stop.is_set():
                self.turn()
            self.commit()
        finally:
            self.close()

    def join(self) -> None:
        """Ask the group for partitions; they come with the turns."""
        self._consumer.subscribe(
            [self.step.input_topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def assign(self, partitions: Iterable[int]) -> None:
        """Take these partitions without a group: nobody else does, and nothing moves them."""
        for partition in partitions:
            self._restoring[partition] = self.parts.restorer.submit(partition)

    def hold(self) -> bool:
        """Commit what was added and read nothing more until `read_to` or `release`; gives whether the loop rests."""
        if self._limits is None:
            self.commit()
            if self._rewind:
                return False
            self._limits = {}
            self._stop_reading(self._ready)
        return not self.step.pending()

    def read_to(self, limits: Mapping[int, int]) -> None:
        """Of a held loop: read every partition up to its offset, which itself is not read."""
        if self._limits != limits and not self.step.pending():
            self._limits = limits
            self._stop_reading(self._ready)
            self._read_on(sorted(self._ready))

    def release(self) -> None:
        """Read on, from what was committed."""
        if self._limits is None:
            return
        # What was added since the last commit is in the consumer's past: reading on from progress would add it again.
        self.commit()
        self._limits = None
        if not self._rewind:
            self._stop_reading(self._ready)
            self._read_on(sorted(self._ready))

    def turn(self) -> None:
        """One poll and what follows from it."""
        self._set_right()
        self._begin_restored()
        messages = self._poll()
        if self._rewind or self._read_back:
            # A rebalance during the poll ended in an abort: what was just read comes once more.
            return
        if messages or not self.step.pending():
            # Here and not at the commit: the metadata has to be as old as what it covers.
            self._metadata = self._consumer.consumer_group_metadata()
        if messages:
            if not self.step.pending():
                self._filling_since = time.monotonic()
            self._events += self.step.add(cast(Sequence[Record], messages))
        for attendant in self.parts.attendants:
            attendant.attend(self)
        if self.step.pending() and self._is_due(len(messages)):
            self.commit()
        self._measure()

    @property
    def ready(self) -> frozenset[int]:
        """Partitions that are assigned and read back."""
        return frozenset(self._ready)

    def consumed(self, partition: int) -> int:
        """Every record below this offset was added or is behind the accepted progress."""
        return max(self.step.progress(partition).next_offset, self._ends.get(partition, 0))

    @property
    def restored(self) -> int:
        """Records that were read back so far for partitions that were assigned."""
        return self.parts.restorer.records

    def commit(self) -> None:
        """One transaction over all that was added; if it fails, the step stands where it stood before."""
        if not self.step.pending():
            return
        self._committed_at = time.monotonic()
        before = {partition: self.step.progress(partition) for partition in self._ready}
        output = self.step.take()
        try:
            delivered = self._transact(output)
        except Abortable as error:
            self._failed(error)
            return
        self.step.accept()
        self._settle(delivered)
        self._events = 0
        self._failures = 0
        for partition, progress in output.progress.items():
            self._count(before[partition], progress)

    def close(self) -> None:
        """Leave the group. What is not committed now is dropped: an error may be the reason for the end."""
        self.step.reset()
        self.parts.restorer.close()
        for attendant in self.parts.attendants:
            attendant.close()
        self._consumer.close()
        for partition in sorted(self._ready):
            self._forget(partition)
        if self.parts.state is not None:
            self.parts.state.store.close_all()
        self.parts.transactions.close()
        # A process outlives its generations: one that is left is not behind either.
        with suppress(KeyError):
            LAG.remove(self.flow)

    # -- transactions

    def _transact(self, output: Output) -> Delivered:
        topic = self.step.input_topic
        offsets = {
            (topic, partition): progress.next_offset for partition, progress in output.progress.items()
        }
        return self.parts.transactions.commit(
            [*output.records, *self._progress_records(output)], offsets, self._metadata
        )

    def _progress_records(self, output: Output) -> Iterable[OutRecord]:
        """The progress of every partition that is ours, changed or not, so that it is near the topic's end."""
        for partition in sorted(self._ready | output.progress.keys()):
            progress = output.progress.get(partition) or self.step.progress(partition)
            key = progress_key(self.step.name, self.step.input_topic, partition)
            value = self.parts.progress_codec.encode(progress.to_record(self._at.input_topic_id))
            yield OutRecord(self._at.progress_topic, 0, key, value)

    def _failed(self, error: Abortable) -> None:
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            raise Fatal(
                f"{self.flow}: {self._failures} transactions in a row failed, the last: {error}"
            ) from error
        _log.warning("transaction is repeated", flow=self.flow, reason=str(error), failures=self._failures)
        self._drop()
        self._read_back |= isinstance(error, OutcomeUnknown)

    def _drop(self) -> None:
        """Forget what was added since the last commit; the next turn reads it again."""
        self.step.reset()
        self._events = 0
        self._ends.clear()
        self._rewind = True

    def _settle(self, delivered: Delivered) -> None:
        if self.parts.state is not None:
            topic = self.parts.state.topic
            self.parts.state.store.settle(
                {p: offset for (name, p), offset in delivered.items() if name == topic}
            )

    def _set_right(self) -> None:
        """After an abort consume again from the accepted progress; if the outcome is unknown, read that back first."""
        if not self._rewind:
            return
        ready = sorted(self._ready)
        self._stop_reading(ready)
        if self._read_back:
            for partition in ready:
                self._forget(partition)
                self._restoring[partition] = self.parts.restorer.submit(partition)
        else:
            self._read_on(ready)
        self._rewind = self._read_back = False

    # -- partitions

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Taken over, but not read: each is added with its offset when it was read back.
        consumer.incremental_assign([])
        for partition in _numbers(partitions):
            self._restoring[partition] = self.parts.restorer.submit(partition)
        _log.info("partitions assigned", flow=self.flow, partitions=_numbers(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        self.commit()
        self._give_up(partitions)
        _log.info("partitions revoked", flow=self.flow, partitions=_numbers(partitions))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        self._drop()
        self._give_up(partitions)
        _log.warning("partitions lost", flow=self.flow, partitions=_numbers(partitions))

    def _give_up(self, partitions: list[TopicPartition]) -> None:
        given_up = _numbers(partitions)
        self._stop_reading([partition for partition in given_up if partition in self._ready])
        for partition in given_up:
            self._restoring.pop(partition, None)
            if partition in self._ready:
                self._forget(partition)

    def _forget(self, partition: int) -> None:
        self._ready.discard(partition)
        self._ends.pop(partition, None)
        self.step.forget(partition)
        self._reading.discard(partition)
        if self.parts.state is not None:
            self.parts.state.store.close(partition)

    def _begin_restored(self) -> None:
        """Let the partitions begin whose progress and state were read back."""
        done = [partition for partition, future in self._restoring.items() if future.done()]
        for partition in done:
            progress = self._restoring.pop(partition).result()
            self.step.begin(partition, progress)
            self._ready.add(partition)
        self._read_on(done)

    def _read_on(self, partitions: Sequence[int]) -> None:
        # Assigned with their offsets instead of seek and resume, which race with each other in librdkafka.
        offsets = {partition: self.step.progress(partition).next_offset for partition in partitions}
        if self._limits is not None:
            offsets = {p: offset for p, offset in offsets.items() if offset < self._limits.get(p, 0)}
        if not offsets:
            return
        self._reading |= offsets.keys()
        topic = self.step.input_topic
        self._consumer.incremental_assign([TopicPartition(topic, p, o) for p, o in offsets.items()])

    def _stop_reading(self, partitions: Iterable[int]) -> None:
        stopped = sorted(self._reading.intersection(partitions))
        self._reading.difference_update(stopped)
        # Of nothing too: in a callback it answers the group, which would give up what is not read otherwise.
        self._consumer.incremental_unassign([TopicPartition(self.step.input_topic, p) for p in stopped])

    # -- polling

    def _poll(self) -> list[Message]:
        """What has arrived, waiting only if nothing is pending; ends and failures are taken out."""
        self._rebalanced = False
        # Live traffic waits behind a loop that is held.
        wait = RESTORING_SECONDS if self._restoring or self._limits is not None else IDLE_SECONDS
        if self.step.pending():
            wait = max(0.0, self._committed_at + self._pace.pause_seconds - time.monotonic())
        first = self._consumer.poll(wait)
        if first is None:
            return []
        polled = [first, *self._consumer.consume(POLL_EVENTS, 0)]
        messages = polled
        # The cheapest look at every message: ends and failures are a handful in millions.
        if any(map(Message.error, polled)):
            messages = [message for message in polled if message.error() is None]
            self._take_events(polled)
        if self._rebalanced:
            messages = [message for message in messages if message.partition() in self._ready]
        return messages if self._limits is None else self._within(messages, self._limits)

    def _within(self, messages: list[Message], limits: Mapping[int, int]) -> list[Message]:
        """What a held loop may take; one that stands behind a limit shows that everything before it has come."""
        if messages and len(self._reading) == 1:
            # Of one partition they are in order: a slice of a replay has no time to look at each of millions.
            (only,) = self._reading
            if (messages[-1].offset() or 0) < limits.get(only, 0):
                return messages
        taken = []
        for message in messages:
            partition, offset = message.partition() or 0, message.offset() or 0
            if offset < limits.get(partition, 0):
                taken.append(message)
            elif partition in limits and not self._rewind:
                self._ends[partition] = max(limits[partition], self._ends.get(partition, 0))
        return taken

    def _take_events(self, polled: Sequence[Message]) -> None:
        for message in polled:
            failure = message.error()
            if failure is None:
                continue
            partition, offset = message.partition(), message.offset()
            if is_end(failure):
                # After an abort within this poll all of it is dropped: then an end says nothing of what was seen.
                if partition in self._ready and offset is not None and not self._rewind:
                    # Of a held loop no more than its limits: what stands behind them is dropped.
                    seen = offset if self._limits is None else min(offset, self._limits.get(partition, 0))
                    self._ends[partition] = max(seen, self._ends.get(partition, 0))
            elif is_lost(failure):
                raise Fatal(
                    f"{self.flow}: cannot go on in {message.topic()} partition {partition}: {failure.str()}"
                )
            else:
                _log.warning("consuming is retried", flow=self.flow, reason=failure.str())

    def _is_due(self, polled: int) -> bool:
        now, pace = time.monotonic(), self._pace
        if polled < pace.trickle_events and now >= self._committed_at + pace.pause_seconds:
            return True
        return self._events >= pace.events or now - self._filling_since >= pace.seconds

    # -- the rest

    def _count(self, before: Progress, after: Progress) -> None:
        EVENTS.labels(self.flow).inc(after.events - before.events)
        DUPLICATES.labels(self.flow).inc(after.duplicates - before.duplicates)
        LATE.labels(self.flow).inc(after.late - before.late)
        DEAD.labels(self.flow).inc(after.dead - before.dead)
        FUTURE.labels(self.flow).inc(after.future - before.future)

    def _measure(self) -> None:
        """Lag as the last fetches saw it; markers count, so it is a bound."""
        if time.monotonic() - self._measured_at < MEASURE_SECONDS:
            return
        self._measured_at = time.monotonic()
        behind = 0
        for partition in self._ready:
            place = TopicPartition(self.step.input_topic, partition)
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            behind += max(0, end - self.consumed(partition))
        LAG.labels(self.flow).set(behind)


def _numbers(partitions: Sequence[TopicPartition]) -> list[int]:
    return sorted(place.partition for place in partitions)
