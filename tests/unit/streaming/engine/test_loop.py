"""The loop without a broker: when it commits, and in which order things happen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from kafka_client.errors import Abortable, Fatal, OutcomeUnknown
from streaming.engine.loop import IDLE_SECONDS, LIVE, Loop, LoopDeps
from streaming.engine.loop_status import LoopStatus
from streaming.engine.progress import Progress
from streaming.engine.restore import Positions
from streaming.engine.step import Output

TOPIC = "events"
END = KafkaError(KafkaError._PARTITION_EOF)


def event(partition: int, offset: int, failure: KafkaError | None = None) -> Message:
    """A message, or an error in its place."""
    return Message(topic=TOPIC, partition=partition, offset=offset, value=b"", error=failure)


def committed(offsets: dict[int, int]) -> list[Any]:
    """What a commit leaves in the log."""
    return ["take", ("commit", offsets), "accept"]


@dataclass
class World:
    """A consumer, a step, transactions and a restorer that write down what happens, in one log."""

    log: list[Any] = field(default_factory=list)
    arriving: list[list[Message]] = field(default_factory=list)
    rebalance: Callable[[World], None] | None = None
    outcome: list[Exception] = field(default_factory=list)
    accepted: dict[int, Progress] = field(default_factory=dict)
    overlay: dict[int, int] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    name: str = "combine"
    input_topic: str = TOPIC
    waited: float = -1.0

    # the consumer

    def subscribe(self, _: list[str], **callbacks: Any) -> None:
        self.callbacks = callbacks

    def poll(self, seconds: float) -> Message | None:
        self.waited = seconds
        if not self.arriving:
            return None
        return self.arriving[0].pop(0)

    def consume(self, _: int, __: float) -> list[Message]:
        rebalance, self.rebalance = self.rebalance, None
        if rebalance is not None:
            rebalance(self)
        return self.arriving.pop(0)

    def consumer_group_metadata(self) -> bytes:
        return b"metadata"

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        if places:
            self.log.append(("read on", {place.partition: place.offset for place in places}))

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        self.log.append(("stop reading", sorted(place.partition for place in places)))

    def get_watermark_offsets(self, _: TopicPartition, cached: bool) -> tuple[int, int]:
        return 0, 0

    # the step

    def begin(self, partition: int, progress: Progress) -> None:
        self.accepted[partition] = progress

    def forget(self, partition: int) -> None:
        self.log.append(("forget", partition))
        del self.accepted[partition]

    def add(self, messages: list[Message]) -> int:
        for message in messages:
            self.overlay[message.partition() or 0] = (message.offset() or 0) + 1
        return len(messages)

    def pending(self) -> bool:
        return bool(self.overlay)

    def take(self) -> Output:
        self.log.append("take")
        progress = {partition: Progress(offset) for partition, offset in self.overlay.items()}
        return Output([], progress, written={"out": len(progress)})

    def accept(self) -> None:
        self.log.append("accept")
        self.accepted |= {partition: Progress(offset) for partition, offset in self.overlay.items()}
        self.overlay.clear()

    def reset(self) -> None:
        self.log.append("reset")
        self.overlay.clear()

    def progress(self, partition: int) -> Progress:
        return self.accepted[partition]

    # transactions and restorer

    def commit(
        self, _: Any, offsets: dict[tuple[str, int], int], __: object, ___: int | None
    ) -> dict[tuple[str, int], int]:
        if self.outcome:
            raise self.outcome.pop(0)
        self.log.append(("commit", {partition: offset for (_, partition), offset in offsets.items()}))
        return {}

    def submit(self, partition: int) -> Future[Progress]:
        self.log.append(("read back", partition))
        done: Future[Progress] = Future()
        done.set_result(self.accepted.get(partition, Progress(0)))
        return done

    def encode(self, _: object) -> bytes:
        return b""

    def close(self) -> None:
        """Of the consumer, the transactions and the restorer."""


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def loop(world: World) -> Loop:
    """With partitions 0 and 1 assigned and read back."""
    anything: Any = world
    positions = Positions("test.combine", "combine", "group", TOPIC, "id", "progress", {0: 0, 1: 0})
    loop = Loop(LoopDeps(anything, anything, anything, anything, positions, anything))
    loop.subscribe()
    world.callbacks["on_assign"](world, [TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)])
    loop.run_once()
    assert loop.ready == {0, 1}
    world.log.clear()
    return loop


@pytest.fixture
def held(world: World, loop: Loop) -> Loop:
    loop.hold()
    world.log.clear()
    return loop


@pytest.fixture
def status(loop: Loop) -> LoopStatus:
    """Sampled a moment ago, and not again before its second is over."""
    status = LoopStatus("combine", 1)
    status.punctuate(loop)
    loop.deps = replace(loop.deps, punctuators=[status])
    return status


def give_up(callback: str, *partitions: int) -> Callable[[World], None]:
    return lambda world: world.callbacks[callback](world, [TopicPartition(TOPIC, p) for p in partitions])


def turn(world: World, loop: Loop, *messages: Message) -> None:
    """One `run_once`, whose poll gets the messages."""
    world.arriving = [list(messages)]
    loop.run_once()


def policy(loop: Loop, **changes: Any) -> None:
    loop._commit_policy = replace(loop._commit_policy, **changes)


@pytest.fixture
def pressed(loop: Loop) -> None:
    """Every poll counts as one of an input that presses, and nothing is due by its time."""
    policy(loop, trickle_events=0, seconds=3600)


def test_what_trickles_in_is_committed_at_once(world: World, loop: Loop) -> None:
    turn(world, loop, event(0, 5), event(1, 8))
    assert world.log == committed({0: 6, 1: 9})


def test_transactions_of_a_trickling_input_are_apart(world: World, loop: Loop) -> None:
    policy(loop, pause_seconds=3600, seconds=3600)
    # The clock may have begun less than an hour ago.
    loop._committed_at = -3600
    world.arriving = [[event(0, 5)], [event(0, 6)], [event(0, 7)]]
    loop.run_once()
    world.log.clear()
    loop.run_once()
    loop.run_once()
    assert (world.log, world.overlay) == ([], {0: 8})
    policy(loop, pause_seconds=0)
    loop.run_once()
    assert world.log == committed({0: 8})


def test_a_loop_that_waits_for_more_before_a_commit_polls_with_a_pause(
    world: World, loop: Loop, pressed: None
) -> None:
    turn(world, loop, event(0, 5))
    loop.run_once()
    assert world.waited == IDLE_SECONDS, "a replay took a core to poll for what had not come yet"
    loop._commit_policy = LIVE
    loop._committed_at = 0
    loop.run_once()
    assert world.waited == 0, "what is live is committed at once if nothing more has come"


def test_an_input_that_presses_is_committed_when_enough_has_come(
    world: World, loop: Loop, pressed: None
) -> None:
    policy(loop, events=3)
    world.arriving = [[event(0, 5), event(0, 6)], [event(0, 7)], [event(0, 8)]]
    loop.run_once()
    assert world.log == []
    loop.run_once()
    assert world.log == committed({0: 8})


def test_an_input_that_presses_is_committed_when_its_time_has_come(
    world: World, loop: Loop, pressed: None
) -> None:
    world.arriving = [[event(0, 5)], [event(0, 6)]]
    loop.run_once()
    assert world.log == []
    policy(loop, seconds=0)
    loop.run_once()
    assert world.log == committed({0: 7})


def test_rule_5_on_revoke_commits_before_it_gives_up(world: World, loop: Loop, pressed: None) -> None:
    world.arriving = [[event(0, 5), event(1, 8)], [event(0, 6), event(1, 9)]]
    loop.run_once()
    world.rebalance = give_up("on_revoke", 1)
    loop.run_once()
    assert world.log == [*committed({0: 6, 1: 9}), ("stop reading", [1]), ("forget", 1)]
    # What came in that poll from the partition that was given up is left to its next owner.
    assert world.overlay == {0: 7}


def test_rule_5_on_lost_aborts(world: World, loop: Loop, pressed: None) -> None:
    world.arriving = [[event(0, 5), event(1, 8)], [event(0, 6)]]
    loop.run_once()
    world.rebalance = give_up("on_lost", 1)
    loop.run_once()
    assert world.log == ["reset", ("stop reading", [1]), ("forget", 1)]
    assert world.overlay == {}
    world.log.clear()
    loop.run_once()
    assert world.log == [("stop reading", [0]), ("read on", {0: 0})]


READ_BACK = [("forget", 0), ("read back", 0), ("forget", 1), ("read back", 1)]


@pytest.mark.parametrize(
    ("outcome", "before"),
    [(Abortable("refused"), []), (OutcomeUnknown("no answer"), READ_BACK)],
    ids=["after an abort", "after an unknown outcome, by the progress that is read back"],
)
def test_rule_5_the_overlay_is_dropped_and_read_again(
    world: World, loop: Loop, outcome: Exception, before: list[Any]
) -> None:
    world.outcome = [outcome]
    world.arriving = [[event(0, 5), event(1, 8)]]
    for _ in range(3):
        loop.run_once()
    assert world.log == ["take", "reset", ("stop reading", [0, 1]), *before, ("read on", {0: 0, 1: 0})]


def test_an_end_shows_how_far_was_consumed(world: World, loop: Loop, pressed: None) -> None:
    turn(world, loop, event(0, 5), event(0, 9, END), event(7, 4, END))
    assert (world.overlay, loop.consumed(0), loop.consumed(1)) == ({0: 6}, 9, 0)


def test_rule_5_an_end_seen_before_an_abort_counts_no_more(world: World, loop: Loop) -> None:
    world.outcome = [Abortable("refused")]
    turn(world, loop, event(0, 5), event(0, 9, END))
    loop.run_once()
    assert loop.consumed(0) == 0


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_ID])
def test_a_lost_position_is_fatal(world: World, loop: Loop, code: int) -> None:
    world.arriving = [[event(0, 5), event(0, -1, KafkaError(code))]]
    with pytest.raises(Fatal, match="partition 0"):
        loop.run_once()


def test_a_passing_failure_is_not(world: World, loop: Loop, pressed: None) -> None:
    turn(world, loop, event(0, 5), event(0, -1, KafkaError(KafkaError._TRANSPORT)))
    assert world.overlay == {0: 6}


def test_a_held_loop_commits_and_rests_until_it_is_released(world: World, loop: Loop, pressed: None) -> None:
    turn(world, loop, event(0, 5))
    assert loop.hold()
    assert world.log == [*committed({0: 6}), ("stop reading", [0, 1])]
    world.log.clear()
    assert loop.hold()
    assert world.log == []
    loop.release()
    assert world.log == [("stop reading", []), ("read on", {0: 6, 1: 0})]


def test_a_held_loop_reads_exactly_up_to_its_limits(world: World, held: Loop) -> None:
    held.read_to({0: 7, 1: 0})
    assert world.log == [("stop reading", []), ("read on", {0: 0})]
    world.log.clear()
    turn(world, held, event(0, 6), event(0, 7), event(0, 8))
    assert world.log == committed({0: 7})
    held.read_to({0: 7, 1: 0})
    assert held.step.progress(0).next_offset == 7
    world.log.clear()
    held.release()
    assert world.log == [("stop reading", [0]), ("read on", {0: 7, 1: 0})]


def test_a_loop_is_held_only_after_its_commit_went_through(world: World, loop: Loop, pressed: None) -> None:
    turn(world, loop, event(0, 5))
    world.outcome = [Abortable("no")]
    assert not loop.hold()
    loop.run_once()
    assert loop.hold()
    assert loop.step.progress(0).next_offset == 0


def test_a_partition_that_comes_to_a_held_loop_is_not_read(world: World, held: Loop) -> None:
    world.callbacks["on_assign"](world, [TopicPartition(TOPIC, 2)])
    held.run_once()
    assert held.ready == {0, 1, 2}
    assert world.log == [("read back", 2)]


def test_a_loop_that_is_released_commits_before_it_reads_on(world: World, held: Loop, pressed: None) -> None:
    held.read_to({0: 100, 1: 100})
    turn(world, held, event(0, 5), event(0, 6))
    world.log.clear()
    held.release()
    assert world.log == [*committed({0: 7}), ("stop reading", [0, 1]), ("read on", {0: 7, 1: 0})]


def test_a_loop_whose_release_is_aborted_reads_that_again(world: World, held: Loop, pressed: None) -> None:
    held.read_to({0: 100, 1: 100})
    turn(world, held, event(0, 5))
    world.outcome = [Abortable("no")]
    held.release()
    world.log.clear()
    held.run_once()
    assert world.log == [("stop reading", [0, 1]), ("read on", {0: 0, 1: 0})]


def test_what_stands_behind_a_limit_shows_that_everything_before_it_has_come(
    world: World, loop: Loop
) -> None:
    loop.hold()
    loop.read_to({0: 7, 1: 5})
    turn(world, loop, event(0, 3), event(0, 8), event(1, 9, END))
    assert (loop.consumed(0), loop.consumed(1)) == (7, 5)
    assert loop.step.progress(0).next_offset == 4


def test_an_end_that_comes_with_an_abort_counts_for_nothing(world: World, loop: Loop, pressed: None) -> None:
    world.arriving = [[event(0, 5)], [event(0, 6), event(0, 7, END)]]
    loop.run_once()
    world.outcome = [Abortable("no")]
    world.rebalance = give_up("on_revoke", 1)
    loop.run_once()
    assert loop.consumed(0) == 0


def test_what_was_written_counts_when_it_is_committed_and_only_then(world: World, loop: Loop) -> None:
    world.outcome = [Abortable("no")]
    turn(world, loop, event(0, 5), event(1, 8))
    assert not loop.written
    loop.run_once()
    policy(loop, pause_seconds=0)
    turn(world, loop, event(0, 5), event(1, 8))
    assert loop.written == {"out": 2}


def test_the_status_at_the_end_holds_the_last_commit(
    world: World, loop: Loop, pressed: None, status: LoopStatus
) -> None:
    stop = threading.Event()
    world.arriving = [[event(0, 5), event(1, 8)]]
    # Stopped within the poll: the commit follows the last sample.
    world.rebalance = lambda _: stop.set()
    loop.run(stop)
    assert ("commit", {0: 6, 1: 9}) in world.log
    assert status.newest.checkpoints == {0: 6, 1: 9}
    assert status.newest.written == {"out": 2}


def test_the_status_of_a_failure_holds_what_was_committed_and_no_more(
    world: World, loop: Loop, pressed: None, status: LoopStatus
) -> None:
    world.arriving = [[event(0, 5)], [event(0, 6)]]
    loop.run_once()
    loop.commit()
    loop.run_once()
    loop.close()
    assert status.newest.checkpoints == {0: 6, 1: 0}
