"""A worker: combine (one for each input) and merge of a generation in one process, a thread and a loop each.

Each loop has its own consumer, group and producer, because a server-side assignor may leave one of two topics in a
group whole on one worker. If one dies, all stop, with the reason.
"""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import DEAD_LETTERS, LATE_EVENTS, SOURCE_POSITIONS, Topic
from kafka_client import clients as connect
from kafka_client.errors import Fatal
from kafka_client.offsets import ends
from kafka_client.writer_schemas import LostSchema
from observability.progress_report import ProgressReport
from observability.waits import Cancelled
from streaming.engine.combine import Combine, CombineOutputs
from streaming.engine.decoding import Decoder, OnLost
from streaming.engine.loop import LIVE, CommitPolicy, Loop, LoopDeps, Punctuator
from streaming.engine.loop_status import LoopStatus, report
from streaming.engine.merge import Merge, MergeTopics
from streaming.engine.opened import OpenTransactions, OpenTransactionsCheck
from streaming.engine.pipeline import Input, Pipeline
from streaming.engine.restore import Positions, Restorer, State
from streaming.engine.schemas import PatientRegistry
from streaming.engine.state import StateStore
from streaming.engine.step import Step
from streaming.engine.transactions import Transactions
from streaming.engine.upkeep import Assignment, Deletion, StateSize, TopicGuard
from streaming.engine.watermarks import Frontiers, Watermarks
from streaming.generations import stores
from streaming.generations.barriers import Barriers, CombineGate, MergeReporter
from streaming.generations.catalog import Generation, check_kept

# Room for what arrives while a transaction commits.
READING = {
    "queued.min.messages": 200_000,
    "queued.max.messages.kbytes": 131_072,
    "fetch.error.backoff.ms": 50,
}
# Reference cycles are few, and a collection visits every message of a poll.
COLLECT_SECONDS = 10.0
# How soon the other loops end with one that failed.
LOOK_SECONDS = 0.2
# Keeps the id that a subject's schema has in the registry now, if any, and returns all that it ever had.
KeptIds = Callable[[str, int | None], Collection[int]]


class Worker:
    """All steps of one generation in one process. `run` returns when `stop` is set, and raises what ended a loop."""

    def __init__(
        self,
        kafka: KafkaSettings,
        pipeline: Pipeline,
        generation: Generation,
        instance_id: int | str,
        state_dir: Path,
        kept_ids: KeptIds,
        *,
        barriers: Barriers | None = None,
        commit_policy: CommitPolicy = LIVE,
        positions: Topic = SOURCE_POSITIONS,
        late: Topic = LATE_EVENTS,
        dead: Topic = DEAD_LETTERS,
    ) -> None:
        self._kafka = kafka
        self._pipeline = pipeline
        self._generation = generation
        self._instance_id = instance_id
        self._kept_ids = kept_ids
        self._barriers = barriers
        self._commit_policy = commit_policy
        self._folder = stores.folder(state_dir, str(generation), instance_id)
        self._source_positions, self._late, self._dead = positions, late, dead
        self._registry = PatientRegistry(kafka)
        self._admin: AdminClient = connect.admin(kafka)
        self._errors: list[BaseException] = []
        self._statuses: list[LoopStatus] = []

    def loops(self) -> tuple[Loop, ...]:
        """A combine for each input, and merge; not started. Raises Fatal if a topic is not the generation's."""
        self.check(self._registry.stop)
        loops: list[Loop] = []
        try:
            for number in range(len(self._pipeline.inputs)):
                loops.append(self.combine(number))
            loops.append(self.merge())
        except BaseException:
            for loop in loops:
                loop.close()
            raise
        return tuple(loops)

    def check(self, stop: threading.Event | None = None) -> None:
        """Raise Fatal if a topic is not the one that the generation was created with, or may lose records.

        Records of the logs may be gone: they are counted, and only a new generation would lack them. Waits while Kafka
        does not answer, until `stop`, which raises Cancelled; raises KafkaException without it.
        """
        TopicGuard(self._admin, self._topics).check()
        own = self._generation.names.all
        logs = [each.source for each in self._pipeline.inputs]
        check_kept(self._kafka, [*logs, *own], whole=own, stop=stop)

    @property
    def _topics(self) -> dict[str, tuple[str, int]]:
        return {name: (topic.id, topic.partitions) for name, topic in self._generation.topics.items()}

    def report(self) -> ProgressReport:
        """The progress of its loops; thread-safe."""
        return report(self._statuses)

    def forget(self) -> None:
        """Delete the local stores, which are a cache of the state topic; none may be open."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, stop: threading.Event) -> None:
        """All loops, each in a thread of its own. What ends one ends the others, and leaves `stop` as it is."""
        self._registry.stop = stop
        try:
            loops = self.loops()
        except Cancelled:
            return
        self._registry.stop = ended = threading.Event()
        threads = [
            threading.Thread(target=self._guarded, args=(loop, ended), name=loop.flow, daemon=True)
            for loop in loops
        ]
        gc.collect()
        gc.freeze()
        gc.disable()
        for thread in threads:
            thread.start()
        collected_at = time.monotonic()
        while not stop.wait(LOOK_SECONDS) and not ended.is_set():
            if time.monotonic() > collected_at + COLLECT_SECONDS:
                gc.collect()
                collected_at = time.monotonic()
        ended.set()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _guarded(self, loop: Loop, ended: threading.Event) -> None:
        try:
            loop.run(ended)
        except Cancelled:
            pass
        except BaseException as error:
            # Raised by `run`; from here it would only be printed.
            self._errors.append(error)
        finally:
            ended.set()

    def _lost(self, is_live: bool) -> OnLost:
        """Live traffic waits for an id that may be put back; a replay fails at once."""

        def lost(error: LostSchema, is_found: Callable[[], bool] | None) -> None:
            if is_found is None or not is_live:
                raise Fatal(str(error)) from error
            self._registry.wait_for(error, is_found)

        return lost

    # -- building

    def combine(self, number: int, *, is_live: bool = True) -> Loop:
        """The loop of an input. If not live it sends neither watermarks nor late events: a candidate's workers do."""
        topics = self._topics
        names, pipeline = self._generation.names, self._pipeline
        source_input = pipeline.inputs[number]
        first = self._generation.first_input(pipeline, number)
        starts = self._generation.start_offsets
        outputs = CombineOutputs(
            partials_topic=names.partials.name,
            partials_partitions=topics[names.partials.name][1],
            partials_schema_id=self._registry.register(names.partials.subject, pipeline.partial_schema()),
            late_topic=self._late.name if is_live else None,
            late_codec=self._registry.codec(self._late.subject, load(self._late.schema)),
            dead_topic=self._dead.name,
            dead_codec=self._registry.codec(self._dead.subject, load(self._dead.schema)),
            first_input=first,
        )
        subject, schema = source_input.source.subject, load(source_input.source.schema)
        # Looked up only: what is registered in an emptied registry may take an id that values in the log have.
        own_ids = self._kept_ids(subject, self._registry.id_of(subject, schema))
        decoder = Decoder(
            schema, pipeline.reads(source_input), self._registry.schema, self._lost(is_live), own_ids
        )
        step = Combine(
            pipeline, source_input, self._generation.parameters, self._generation.number, decoder, outputs
        )
        start = {p: starts[first + p] for p in range(topics[source_input.source.name][1])}
        punctuators: list[Punctuator] = [self._watermarks(source_input)] if is_live else []
        if self._barriers is not None:
            punctuators.append(
                CombineGate(self._barriers, self._pipeline.name, self._generation.number, first)
            )
        return self._loop(step, topics, start, punctuators)

    def merge(self) -> Loop:
        """The loop from partials to state."""
        topics = self._topics
        names, pipeline = self._generation.names, self._pipeline
        store = StateStore(self._folder, topics[names.state.name][0])
        merge_topics = MergeTopics(
            partials_topic=names.partials.name,
            partials_schema_id=self._registry.register(names.partials.subject, pipeline.partial_schema()),
            state_topic=names.state.name,
            state_schema_id=self._registry.register(names.state.subject, pipeline.state_schema()),
            inputs=sum(topics[each.source.name][1] for each in pipeline.inputs),
        )
        start = dict.fromkeys(range(topics[names.partials.name][1]), 0)
        state = State(names.state.name, store)
        punctuators: list[Punctuator] = [Deletion(self._admin), StateSize(store)]
        if self._barriers is not None:
            punctuators.append(MergeReporter(self._barriers, pipeline.name, self._generation.number))
        return self._loop(Merge(pipeline, store, merge_topics), topics, start, punctuators, state)

    def _loop(
        self,
        step: Step,
        topics: Mapping[str, tuple[str, int]],
        start_offsets: Mapping[int, int],
        punctuators: Sequence[Punctuator],
        state: State | None = None,
    ) -> Loop:
        names = self._generation.names
        flow = f"{self._generation}.{step.name}"
        positions = Positions(
            flow=flow,
            step=step.name,
            group_id=names.group_id(step.name),
            input_topic=step.input_topic,
            input_topic_id=topics[step.input_topic][0],
            progress_topic=names.progress.name,
            start_offsets=start_offsets,
        )
        codec = self._registry.codec(names.progress.subject, load(names.progress.schema))
        inputs = sum(topics[each.source.name][1] for each in self._pipeline.inputs)
        status = LoopStatus(step.name, inputs if step.name == "merge" else 1)
        self._statuses.append(status)
        transactional_id = names.transactional_id(step.name, self._instance_id)
        return Loop(
            LoopDeps(
                step=step,
                # The producer first: it fences the process that it replaces before the group gives it a partition.
                transactions=Transactions(
                    lambda: connect.transactional_producer(self._kafka, transactional_id), flow
                ),
                consumer=connect.consumer(self._kafka, positions.group_id, overrides=READING),
                restorer=Restorer(
                    positions,
                    codec,
                    partial(connect.admin, self._kafka),
                    # With the group's id, to read its committed offsets; it never joins.
                    self._reader(positions.group_id),
                    state,
                ),
                positions=positions,
                progress_codec=codec,
                state=state,
                punctuators=[
                    *punctuators,
                    TopicGuard(self._admin, topics, flow),
                    Assignment(positions.group_id),
                    OpenTransactionsCheck(
                        OpenTransactions(self._kafka, lambda: self._admin, flow, positions.group_id),
                        # Without its frontiers no window is ever final.
                        [self._source_positions.name] if state is None else [],
                    ),
                    status,
                ],
                commit_policy=self._commit_policy,
            )
        )

    def _watermarks(self, source_input: Input) -> Watermarks:
        topic = self._source_positions
        end = ends(self._admin, topic.name, [0])[0]
        codec = self._registry.codec(topic.subject, load(topic.schema))
        consumer = self._reader(f"{self._generation}.frontiers")({})
        return Watermarks(Frontiers(consumer, topic.name, codec, end, source_input.sources), self._admin)

    def _reader(self, group_id: str) -> Any:
        def make(overrides: Mapping[str, Any]) -> Consumer:
            return connect.consumer(self._kafka, group_id, subscribed=False, overrides=overrides)

        return make
