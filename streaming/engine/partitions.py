"""The partitions of a loop: which are being restored, which are ready, which of those are read, and up to where.

Each partition begins when it was restored; the others go on meanwhile. A held loop reads none, or up to limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

from confluent_kafka import Consumer, Message, TopicPartition

from streaming.engine.progress import Progress
from streaming.engine.restore import Restorer, State
from streaming.engine.step import Step


class Partitions:
    """The only place that changes what the consumer reads."""

    def __init__(self, step: Step, consumer: Consumer, restorer: Restorer, state: State | None) -> None:
        self._step = step
        self._consumer = consumer
        self._restorer = restorer
        self._state = state
        self.ready: set[int] = set()
        # While held: read up to these offsets, by partition, and not at all where there is none.
        self.limits: Mapping[int, int] | None = None
        self._reading: set[int] = set()
        self._restoring: dict[int, Future[Progress]] = {}
        self._ends: dict[int, int] = {}

    @property
    def is_waited_for(self) -> bool:
        """Whether the loop should poll briefly: a partition is being restored, or a barrier holds live traffic."""
        return bool(self._restoring) or self.limits is not None

    @property
    def are_there(self) -> bool:
        """Whether there is any, read back or not."""
        return bool(self.ready or self._restoring)

    # -- coming and going

    def take(self, partitions: Iterable[int]) -> None:
        """Restore these; each begins when it is done."""
        for partition in partitions:
            self._restoring[partition] = self._restorer.submit(partition)

    def take_over(self, partitions: Iterable[int]) -> None:
        """In the group's callback: accept the assignment, but read no partition before it is restored."""
        self._consumer.incremental_assign([])
        self.take(partitions)

    def begin_restored(self) -> None:
        """Begin the partitions whose progress and state are restored."""
        done = [partition for partition, future in self._restoring.items() if future.done()]
        for partition in done:
            progress = self._restoring.pop(partition).result()
            self._step.begin(partition, progress)
            self.ready.add(partition)
        self.read_on(done)

    def give_up(self, partitions: Sequence[int]) -> None:
        """Drop revoked or lost partitions."""
        self.stop_reading(self.ready.intersection(partitions))
        for partition in partitions:
            self._restoring.pop(partition, None)
            if partition in self.ready:
                self.forget(partition)

    def read_back(self) -> None:
        """Restore all ready partitions again."""
        for partition in sorted(self.ready):
            self.forget(partition)
            self.take([partition])

    def forget(self, partition: int) -> None:
        self.ready.discard(partition)
        self._ends.pop(partition, None)
        self._step.forget(partition)
        self._reading.discard(partition)
        if self._state is not None:
            self._state.store.close(partition)

    # -- reading

    def read_on(self, partitions: Iterable[int]) -> None:
        """From the accepted progress, where a limit allows it."""
        # Assigned with their offsets instead of seek and resume, which race with each other in librdkafka.
        offsets = {partition: self._step.progress(partition).next_offset for partition in partitions}
        if self.limits is not None:
            offsets = {p: offset for p, offset in offsets.items() if offset < self.limits.get(p, 0)}
        if not offsets:
            return
        self._reading |= offsets.keys()
        topic = self._step.input_topic
        self._consumer.incremental_assign([TopicPartition(topic, p, o) for p, o in offsets.items()])

    def stop_reading(self, partitions: Iterable[int]) -> None:
        stopped = sorted(self._reading.intersection(partitions))
        self._reading.difference_update(stopped)
        # Called even if empty: in a callback it acknowledges the revocation of partitions that are not read.
        self._consumer.incremental_unassign([TopicPartition(self._step.input_topic, p) for p in stopped])

    def limit(self, limits: Mapping[int, int] | None) -> None:
        """Read up to these offsets from now on, everything if there are none; from the accepted progress."""
        self.limits = limits
        self.stop_reading(self.ready)
        self.read_on(sorted(self.ready))

    # -- how far

    def consumed(self, partition: int) -> int:
        """Every record below this offset was added or is behind the accepted progress."""
        return max(self._step.progress(partition).next_offset, self._ends.get(partition, 0))

    def note_end(self, partition: int, offset: int) -> None:
        """The partition ends here; while held no more than the limits count, since what is behind them is dropped."""
        if partition in self.ready:
            seen = offset if self.limits is None else min(offset, self.limits.get(partition, 0))
            self._ends[partition] = max(seen, self._ends.get(partition, 0))

    def forget_ends(self) -> None:
        """After an abort: what was read is read again."""
        self._ends.clear()

    def within(self, messages: list[Message], *, are_seen: bool) -> list[Message]:
        """The messages below the limits; with `are_seen`, one behind a limit shows that all before it was read."""
        limits = self.limits
        if limits is None:
            return messages
        if messages and len(self._reading) == 1:
            # Messages of one partition are in order, so the last one decides: a slice of a replay has millions.
            (only,) = self._reading
            if (messages[-1].offset() or 0) < limits.get(only, 0):
                return messages
        taken = []
        for message in messages:
            partition, offset = message.partition() or 0, message.offset() or 0
            if offset < limits.get(partition, 0):
                taken.append(message)
            elif partition in limits and are_seen:
                self._ends[partition] = max(limits[partition], self._ends.get(partition, 0))
        return taken
