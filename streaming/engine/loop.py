"""The one loop of both steps: consume, add, and when it is due one transaction over all of it.

While little comes, a commit happens at once, 20 ms after the last one at the earliest; otherwise every 100 ms or 50,000
events: low load is low latency, high load is high throughput.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, Message, TopicPartition

from kafka_client.error_codes import is_end, is_lost
from kafka_client.errors import Abortable, Fatal, OutcomeUnknown
from kafka_client.registry import Codec
from observability import logs
from observability.waits import WAITS
from streaming.engine.counting import Counting
from streaming.engine.partitions import Partitions
from streaming.engine.progress import progress_key
from streaming.engine.restore import Positions, Restorer, State
from streaming.engine.step import Message as Record
from streaming.engine.step import Output, OutRecord, Step
from streaming.engine.transactions import Delivered, Transactions

# As much as one poll takes at most.
POLL_EVENTS = 50_000
# Wakes for what is periodic; a record wakes the loop at once.
IDLE_SECONDS = 0.2
# While partitions are restored, or while a barrier holds the loop and live traffic waits.
EAGER_SECONDS = 0.02
# Each attempt has waited for the broker already; so many failures in a row are not transient.
MOST_FAILURES = 10

_log = logs.get(__name__)


@dataclass(frozen=True)
class CommitPolicy:
    """When a loop commits. A poll takes all that has arrived: after one of less than `trickle_events` the loop is not
    behind, and a commit is due at once.

    `pause_seconds` lie between the beginnings of two transactions: each costs some ten requests however little is in
    it, and a stream of single sales would fill the machine with them.
    """

    seconds: float
    events: int
    trickle_events: int
    pause_seconds: float


LIVE = CommitPolicy(seconds=0.1, events=50_000, trickle_events=1_000, pause_seconds=0.02)
# A replay needs no low latency, and fewer commits make fewer partials for merge to read.
REPLAY = CommitPolicy(seconds=2.0, events=200_000, trickle_events=0, pause_seconds=0.0)


class Punctuator(ABC):
    """Something periodic that a loop does between polls."""

    @abstractmethod
    def punctuate(self, loop: Loop) -> None:
        """Do what is due, without waiting; responses are read in a later call."""

    def close(self, loop: Loop) -> None:  # noqa: B027 - most have nothing to close
        """The loop ends: it is at its last commit, and still has its partitions."""


@dataclass(frozen=True)
class LoopDeps:
    """The dependencies of a loop, which closes them."""

    step: Step
    consumer: Consumer
    transactions: Transactions
    restorer: Restorer
    positions: Positions
    progress_codec: Codec
    state: State | None = None
    punctuators: Sequence[Punctuator] = ()
    commit_policy: CommitPolicy = LIVE


class Loop:
    """Drives one step over the partitions that the group gives it."""

    def __init__(self, deps: LoopDeps) -> None:
        self.step = deps.step
        self.flow = deps.positions.flow
        self.deps = deps
        # Records that were committed, by topic; since the loop began.
        self.written = Counter[str]()
        self._consumer = deps.consumer
        self._at = deps.positions
        self._commit_policy = deps.commit_policy
        self._counting = Counting(self.flow)
        self._partitions = Partitions(deps.step, deps.consumer, deps.restorer, deps.state)
        self._metadata: object = None
        # What the next turn has to recover first: consume again from the accepted progress, or read that back.
        self._rewind = False
        self._read_back = False
        self._rebalanced = False
        self._failures = 0
        self._events = 0
        self._filling_since = 0.0
        self._committed_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set. Raises Fatal, after which a new process has to resume."""
        self.subscribe()
        try:
            while not stop.is_set():
                self.run_once()
            self.commit()
        finally:
            self.close()

    def subscribe(self) -> None:
        """Ask the group for partitions; they come with the turns."""
        self._consumer.subscribe(
            [self.step.input_topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def assign(self, partitions: Iterable[int]) -> None:
        """Take these partitions without a group: no other consumer has them, and there are no rebalances."""
        self._partitions.take(partitions)

    def hold(self) -> bool:
        """Commit what was added and pause until `read_to` or `release`; returns whether all is committed."""
        if self._partitions.limits is None:
            self.commit()
            if self._rewind:
                return False
            self._partitions.limit({})
        return not self.step.pending()

    def read_to(self, limits: Mapping[int, int]) -> None:
        """While held: read every partition up to its offset, exclusive."""
        if self._partitions.limits != limits and not self.step.pending():
            self._partitions.limit(limits)

    def release(self) -> None:
        """Resume from what was committed."""
        if self._partitions.limits is None:
            return
        # The consumer is ahead of progress by what was added since the last commit: to resume would add it again.
        self.commit()
        if self._rewind:
            # The next turn resumes.
            self._partitions.limits = None
        else:
            self._partitions.limit(None)

    def run_once(self) -> None:
        """One poll and what follows from it."""
        WAITS.turn(self.flow)
        self._recover()
        self._partitions.begin_restored()
        messages = self._poll()
        if self._rewind or self._read_back:
            # A rebalance during the poll ended in an abort: what was just read is read again.
            return
        if messages or not self.step.pending():
            # Here and not at the commit: the metadata must be of the poll that it covers.
            self._metadata = self._consumer.consumer_group_metadata()
        if messages:
            if not self.step.pending():
                self._filling_since = time.monotonic()
            self._events += self.step.add(cast(Sequence[Record], messages))
        for punctuator in self.deps.punctuators:
            punctuator.punctuate(self)
        if self.step.pending() and self._is_due(len(messages)):
            self.commit()
        self._counting.measure(self._behind)

    @property
    def ready(self) -> frozenset[int]:
        """Partitions that are assigned and read back."""
        return frozenset(self._partitions.ready)

    @property
    def has_partitions(self) -> bool:
        """Whether any is assigned, read back or not."""
        return self._partitions.are_there

    def consumed(self, partition: int) -> int:
        """Every record below this offset was added or is behind the accepted progress."""
        return self._partitions.consumed(partition)

    @property
    def restored(self) -> int:
        """Records that were read back so far for partitions that were assigned."""
        return self.deps.restorer.records

    def commit(self) -> None:
        """One transaction over all that was added; if it fails, the step is reset to the last commit."""
        if not self.step.pending():
            return
        self._committed_at = time.monotonic()
        before = {partition: self.step.progress(partition) for partition in self.ready}
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
        self.written.update(output.written)
        self._counting.refuse(output.refused)
        for partition, progress in output.progress.items():
            self._counting.count(before[partition], progress)

    def close(self) -> None:
        """Leave the group. What is not committed is dropped: an error may be the reason for the end."""
        WAITS.leave(self.flow)
        self.step.reset()
        self.deps.restorer.close()
        for punctuator in self.deps.punctuators:
            punctuator.close(self)
        self._consumer.close()
        for partition in sorted(self.ready):
            self._partitions.forget(partition)
        if self.deps.state is not None:
            self.deps.state.store.close_all()
        self.deps.transactions.close()
        self._counting.close()

    # -- transactions

    def _transact(self, output: Output) -> Delivered:
        topic = self.step.input_topic
        offsets = {
            (topic, partition): progress.next_offset for partition, progress in output.progress.items()
        }
        return self.deps.transactions.commit(
            [*output.records, *self._progress_records(output)], offsets, self._metadata, output.oldest_micros
        )

    def _progress_records(self, output: Output) -> Iterable[OutRecord]:
        """The progress of every assigned partition, changed or not, so that it is near the topic's end."""
        for partition in sorted(self.ready | output.progress.keys()):
            progress = output.progress.get(partition) or self.step.progress(partition)
            key = progress_key(self.step.name, self.step.input_topic, partition)
            value = self.deps.progress_codec.encode(progress.to_record(self._at.input_topic_id))
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
        self._partitions.forget_ends()
        self._rewind = True

    def _settle(self, delivered: Delivered) -> None:
        if self.deps.state is not None:
            topic = self.deps.state.topic
            self.deps.state.store.settle(
                {p: offset for (name, p), offset in delivered.items() if name == topic}
            )

    def _recover(self) -> None:
        """After an abort consume again from the accepted progress; if the outcome is unknown, read that back first."""
        if not self._rewind:
            return
        self._partitions.stop_reading(self.ready)
        if self._read_back:
            self._partitions.read_back()
        else:
            self._partitions.read_on(sorted(self.ready))
        self._rewind = self._read_back = False

    # -- the group

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._partitions.take_over(_numbers(partitions))
        _log.info("partitions assigned", flow=self.flow, partitions=_numbers(partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        self.commit()
        self._partitions.give_up(_numbers(partitions))
        _log.info("partitions revoked", flow=self.flow, partitions=_numbers(partitions))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._rebalanced = True
        self._drop()
        self._partitions.give_up(_numbers(partitions))
        _log.warning("partitions lost", flow=self.flow, partitions=_numbers(partitions))

    # -- polling

    def _poll(self) -> list[Message]:
        """What has arrived, waiting only if nothing is pending; ends and failures are taken out."""
        self._rebalanced = False
        wait = EAGER_SECONDS if self._partitions.is_waited_for else IDLE_SECONDS
        if self.step.pending():
            wait = min(IDLE_SECONDS, max(0.0, self._due_at() - time.monotonic()))
        first = self._consumer.poll(wait)
        if first is None:
            return []
        polled = [first, *self._consumer.consume(POLL_EVENTS, 0)]
        messages = polled
        # The cheapest check of every message: ends and failures are a handful in millions.
        if any(map(Message.error, polled)):
            messages = [message for message in polled if message.error() is None]
            self._take_events(polled)
        if self._rebalanced:
            ready = self.ready
            messages = [message for message in messages if message.partition() in ready]
        # After an abort within this poll all of it is dropped, so it must not count as seen.
        return self._partitions.within(messages, are_seen=not self._rewind)

    def _take_events(self, polled: Sequence[Message]) -> None:
        for message in polled:
            failure = message.error()
            if failure is None:
                continue
            partition, offset = message.partition(), message.offset()
            if is_end(failure):
                if partition is not None and offset is not None and not self._rewind:
                    self._partitions.note_end(partition, offset)
            elif is_lost(failure):
                raise Fatal(
                    f"{self.flow}: cannot go on in {message.topic()} partition {partition}: {failure.str()}; were "
                    "records deleted there? See docs/runbooks/TopicNotKept.md"
                )
            else:
                _log.warning("consuming is retried", flow=self.flow, reason=failure.str())

    def _due_at(self) -> float:
        """When what is pending is committed if nothing more comes; polling sooner would only use CPU."""
        if self._commit_policy.trickle_events:
            return self._committed_at + self._commit_policy.pause_seconds
        return self._filling_since + self._commit_policy.seconds

    def _is_due(self, polled: int) -> bool:
        now, policy = time.monotonic(), self._commit_policy
        if polled < policy.trickle_events and now >= self._committed_at + policy.pause_seconds:
            return True
        return self._events >= policy.events or now - self._filling_since >= policy.seconds

    # -- the rest

    def _behind(self) -> dict[int, int]:
        """By partition, as the last fetches saw it; markers count, so it is a bound."""
        behind = {}
        for partition in self.ready:
            place = TopicPartition(self.step.input_topic, partition)
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            behind[partition] = max(0, end - self.consumed(partition))
        return behind


def _numbers(partitions: Sequence[TopicPartition]) -> list[int]:
    return sorted(place.partition for place in partitions)
