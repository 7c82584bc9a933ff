"""Retirement of a generation: it is stopped, then its rows, groups, topics and subjects are deleted.

`retired` is the first step, in one transaction: workers and sink leave it within about a second, and nothing is applied
to it any more. `retired_at` is the last: until then the same call resumes what a crash left.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from sqlalchemy import Connection, Engine, delete, func, select, text, update
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from contracts.settings import KafkaSettings
from contracts.tables import barrier_reports, barriers, differences, generations, sink_positions
from contracts.topics import GenerationTopics
from kafka_client.clients import TIMEOUT_SECONDS, admin
from kafka_client.errors import Retriable
from kafka_client.registry import Registry, Unreachable, reason
from observability import logs
from streaming.engine.schemas import may_pass
from streaming.generations.barriers import OPEN
from streaming.pipelines import PIPELINES
from streaming.replay.advisory_lock import is_worked_on
from streaming.replay.errors import Busy, RequestRefused
from streaming.replay.failpoints import failpoint

# The time in which a promotion can be rolled back.
STANDBY_KEPT = timedelta(days=7)
# To look up what paused live traffic in the last week.
BARRIERS_KEPT = timedelta(days=7)
# About a tenth of a second of the database's work, so that the sink's transactions run in between.
BATCH_ROWS = 10_000
# A worker leaves within a second or two; a killed one is a member until its session timeout.
LEAVING_SECONDS = 90.0
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND)

_log = logs.get(__name__)


@dataclass(frozen=True)
class Retired:
    """What this call deleted; nothing if an earlier one did."""

    pipeline: str
    generation: int
    rows: int
    topics: int


def retire(kafka: KafkaSettings, results: Engine, pipeline: str, number: int) -> Retired:
    """Retire the generation. A repeated call resumes, and returns what was left to do.

    Raises RequestRefused, and nothing was changed, for the active one and one that a replay is building right now;
    Retriable if workers do not leave: it is retired then, and the same call finishes it.
    """
    _mark(results, pipeline, number)
    failpoint("retire.marked")
    rows = _delete_rows(results, pipeline, number)
    failpoint("retire.rows")
    names = GenerationTopics(pipeline, number)
    client = admin(kafka)
    _delete_groups(client, pipeline, names)
    failpoint("retire.groups")
    topics = _delete(
        client.delete_topics([t.name for t in names.all], operation_timeout=TIMEOUT_SECONDS).items()
    )
    failpoint("retire.topics")
    _delete_subjects(kafka, pipeline, names)
    failpoint("retire.subjects")
    with results.begin() as connection:
        connection.execute(
            update(generations)
            .where(
                generations.c.pipeline == pipeline,
                generations.c.number == number,
                generations.c.retired_at.is_(None),
            )
            .values(retired_at=datetime.now(UTC))
        )
    failpoint("retire.done")
    _log.info("retired", pipeline=pipeline, generation=number, rows=rows, topics=topics)
    return Retired(pipeline, number, rows, topics)


def retire_old_standbys(
    kafka: KafkaSettings, results: Engine, *, now: datetime | None = None
) -> list[Retired]:
    """Retire expired standbys, complete interrupted retirements, and delete old barriers.

    To be called once a day. A failure does not stop the others; it is raised as Retriable at the end.
    """
    now = now or datetime.now(UTC)
    _forget_barriers(results, now - BARRIERS_KEPT)
    before = now - STANDBY_KEPT
    of = generations.c
    wanted = (
        select(of.pipeline, of.number)
        .where(
            ((of.state == "standby") & (of.standby_at < before))
            | ((of.state == "retired") & of.retired_at.is_(None))
        )
        .order_by(of.pipeline, of.number)
    )
    with results.connect() as connection:
        expired = connection.execute(wanted).all()
    done: list[Retired] = []
    left: list[str] = []
    for pipeline, number in expired:
        try:
            done.append(retire(kafka, results, pipeline, number))
        except (RequestRefused, Retriable) as error:
            left.append(str(error))
    if left:
        raise Retriable("; ".join(left))
    return done


def may_be_retired(results: Engine, pipeline: str, number: int) -> str:
    """The state of a generation that can be retired now. Raises RequestRefused, as `retire` would."""
    with results.begin() as connection:
        return _checked(connection, pipeline, number)


def _mark(results: Engine, pipeline: str, number: int) -> None:
    of = generations.c
    with results.begin() as connection:
        if _checked(connection, pipeline, number) != "retired":
            this = (of.pipeline == pipeline) & (of.number == number)
            connection.execute(update(generations).where(this).values(state="retired"))


def _checked(connection: Connection, pipeline: str, number: int) -> str:
    """The state, locked until the transaction ends. Raises RequestRefused."""
    of = generations.c
    this = (of.pipeline == pipeline) & (of.number == number)
    # Waits for a running apply; the next one reads the new state.
    state: str | None = connection.scalar(select(of.state).where(this).with_for_update())
    if state is None:
        raise RequestRefused(f"{pipeline} has no generation {number}")
    if state == "active":
        raise RequestRefused(
            f"{pipeline} g{number} is active: promote another one, or roll back, before it is retired"
        )
    if _is_held(connection, pipeline, number):
        raise Busy(f"{pipeline} g{number} is being compared or promoted: try again in a moment")
    if state == "building" and is_worked_on(connection, pipeline, number):
        raise RequestRefused(f"{pipeline} g{number} is being built right now: end its replay first")
    return state


def _is_held(connection: Connection, pipeline: str, number: int) -> bool:
    """Whether an open barrier includes the generation: it would wait in vain, with live traffic paused."""
    of = barriers.c
    wanted = select(of.id).where(
        of.pipeline == pipeline,
        of.generations.contains([number]),
        of.state.in_(OPEN),
        of.expires_at > func.clock_timestamp(),
    )
    return connection.scalar(wanted) is not None


def _delete_rows(results: Engine, pipeline: str, number: int) -> int:
    """Result rows, then positions, then the rows of its differences; the differences' summaries are kept."""
    tables = sorted({each.table for (name, _), each in PIPELINES.items() if name == pipeline})
    if not tables:
        raise Retriable(
            f"this code has no pipeline {pipeline}, and not the name of its table: retire it with code that has"
        )
    done = sum(_in_batches(results, table, "generation = :number", {"number": number}) for table in tables)
    with results.begin() as connection:
        connection.execute(
            delete(sink_positions).where(
                sink_positions.c.pipeline == pipeline, sink_positions.c.generation == number
            )
        )
        compared = connection.scalars(
            select(differences.c.id).where(
                differences.c.pipeline == pipeline, differences.c.generation == number
            )
        ).all()
    for difference in compared:
        _in_batches(results, "difference_rows", "difference = :number", {"number": difference})
    return done


def _in_batches(results: Engine, table: str, condition: str, values: dict[str, object]) -> int:
    statement = text(
        f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT {BATCH_ROWS}))"
    )
    done = 0
    while True:
        with results.begin() as connection:
            count = connection.execute(statement, values).rowcount
        done += count
        if count < BATCH_ROWS:
            return done
        failpoint("retire.batch")


def _delete_groups(client: AdminClient, pipeline: str, names: GenerationTopics) -> None:
    """Delete the generation's groups as soon as they are empty: then no worker reads or writes its topics any more."""
    steps = {
        of_version.step(each)
        for (name, _), of_version in PIPELINES.items()
        if name == pipeline
        for each in of_version.inputs
    }
    groups = [names.group_id(step) for step in sorted({*steps, "merge", "sink"})]
    retrying = Retrying(
        retry=retry_if_exception(lambda error: _code(error) == KafkaError.NON_EMPTY_GROUP),
        stop=stop_after_delay(LEAVING_SECONDS),
        wait=wait_fixed(0.2),
    )
    for group in groups:
        try:
            retrying(
                lambda group=group: _delete(
                    client.delete_consumer_groups([group], request_timeout=TIMEOUT_SECONDS).items()
                )
            )
        except RetryError as error:
            raise Retriable(
                f"{pipeline} g{names.generation} is retired, but a worker is still in its group {group}: "
                "when that is gone, retire it again"
            ) from error


def _delete_subjects(kafka: KafkaSettings, pipeline: str, names: GenerationTopics) -> None:
    """The subjects are the generation's own; a schema that another one has as well keeps its id there."""
    registry = Registry(kafka)
    for topic in names.all:
        try:
            registry.forget(topic.subject)
        except (SchemaRegistryError, Unreachable) as error:
            if may_pass(error):
                raise Retriable(
                    f"{pipeline} g{names.generation} is retired, but the schema registry does not answer "
                    f"({reason(error)}): when it does, retire it again"
                ) from error
            # The registry may forbid deletion; an unused subject costs nothing.
            _log.warning("subject stays in the registry", subject=topic.subject, reason=reason(error))


def _forget_barriers(results: Engine, before: datetime) -> None:
    """Delete barriers that expired before, with their reports, in any state."""
    old = select(barriers.c.id).where(barriers.c.expires_at < before)
    with results.begin() as connection:
        connection.execute(delete(barrier_reports).where(barrier_reports.c.barrier.in_(old)))
        connection.execute(delete(barriers).where(barriers.c.id.in_(old)))


def _delete(futures: Iterable[tuple[str, Future[None]]]) -> int:
    """Wait for the deletions; returns how many existed."""
    count = 0
    for _, future in futures:
        try:
            future.result()
            count += 1
        except KafkaException as error:
            if _code(error) not in _GONE:
                raise
    return count


def _code(error: BaseException) -> int | None:
    return error.args[0].code() if isinstance(error, KafkaException) else None
