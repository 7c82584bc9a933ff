"""Transactions that stay open: read_committed consumers stop at them until they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from contracts.settings import KafkaSettings
from kafka_client.clients import consumer
from kafka_client.open_producers import open_producers
from observability import logs
from observability.waits import WAITS
from streaming.engine.loop import Loop, Punctuator

# Open at two checks with nothing committed in between: not a transaction of a source, which lasts 50 ms.
LOOK_SECONDS = 5.0
REQUEST_SECONDS = 10.0
_LEVELS = (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]

_log = logs.get(__name__)

_Place = tuple[str, int]


class OpenTransactions:
    """Reports open transactions as a wait of `reporter`; queries every few seconds, without blocking."""

    def __init__(
        self, kafka: KafkaSettings, make_admin: Callable[[], AdminClient], reporter: str, group_id: str
    ) -> None:
        """`group_id` names the reader of the first open record; nothing is joined or committed."""
        self._kafka = kafka
        self._make_admin = make_admin
        self._admin: AdminClient | None = None
        self._reporter = reporter
        self._group_id = group_id
        self._looked_at = time.monotonic()
        self._asked: list[Mapping[TopicPartition, Future[object]]] = []
        # The last stable offset at the last check, of partitions with an open transaction.
        self._open: dict[_Place, int] = {}
        self._sentences: dict[tuple[_Place, int], Future[str]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="open-transactions")

    def look(self, places: Iterable[_Place]) -> None:
        """Query if it is due, or evaluate the responses."""
        if self._asked:
            if all(future.done() for asked in self._asked for future in asked.values()):
                self._judge()
        elif time.monotonic() > self._looked_at + LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._ask([TopicPartition(*place) for place in places])

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        WAITS.end("transaction", self._reporter)

    def _ask(self, places: list[TopicPartition]) -> None:
        if not places:
            self._report({})
            return
        if self._admin is None:
            self._admin = self._make_admin()
        wanted = dict.fromkeys(places, _LATEST)
        self._asked = [
            self._admin.list_offsets(wanted, isolation_level=level, request_timeout=REQUEST_SECONDS)
            for level in _LEVELS
        ]

    def _judge(self) -> None:
        asked, self._asked = self._asked, []
        try:
            committed, written = [
                {(place.topic, place.partition): future.result().offset for place, future in answers.items()}  # type: ignore[attr-defined]
                for answers in asked
            ]
        except KafkaException as error:
            # Kafka is away, which other checks report.
            _log.debug("open transactions are looked for again", reason=error.args[0].str())
            return
        self._report({place: end for place, end in committed.items() if end < written[place]})

    def _report(self, now: dict[_Place, int]) -> None:
        before, self._open = self._open, now
        standing = [(place, end) for place, end in sorted(now.items()) if before.get(place) == end]
        self._sentences = {one: self._sentence(one) for one in standing}
        details = [future.result() for future in self._sentences.values() if future.done()]
        if details:
            WAITS.begin("transaction", "; ".join(details), self._reporter)
        elif not standing:
            WAITS.end("transaction", self._reporter)

    def _sentence(self, one: tuple[_Place, int]) -> Future[str]:
        return self._sentences.get(one) or self._thread.submit(described, self._kafka, self._group_id, *one)


class OpenTransactionsCheck(Punctuator):
    """Checks a loop's input, and topics of one partition that it reads beside it."""

    def __init__(self, transactions: OpenTransactions, beside: Iterable[str]) -> None:
        self._transactions = transactions
        self._beside = [(topic, 0) for topic in beside]

    def punctuate(self, loop: Loop) -> None:
        own = [(loop.step.input_topic, partition) for partition in sorted(loop.ready)]
        self._transactions.look([*own, *self._beside])

    def close(self, loop: Loop) -> None:
        self._transactions.close()


def described(kafka: KafkaSettings, group_id: str, place: _Place, offset: int) -> str:
    """A message: where, since when and whose, as far as Kafka reports it, and what can be done."""
    topic, partition = place
    whose = since = ""
    try:
        began = _written_at(kafka, group_id, place, offset)
        since = f" since {began:%Y-%m-%d %H:%M:%S}Z" if began else ""
        producers = open_producers(kafka, topic, partition)
        whose = next(
            (f" of producer id {one.id}" for one in producers or () if one.start_offset == offset), ""
        )
    # Any error, such as a partition without a leader: a worker does not end for a detail of a message.
    except Exception as error:
        _log.warning("not all of an open transaction is known", topic=topic, reason=repr(error))
    tool = f"kafka-transactions.sh --bootstrap-server {kafka.kafka_bootstrap}"
    where = f"--topic {topic} --partition {partition}"
    return (
        f"topic {topic} partition {partition}: a transaction{whose} is open{since}, and what stands behind its "
        f"beginning at offset {offset} counts when it ends. `{tool} describe-producers {where}` shows its producer, "
        f"`{tool} abort {where} --start-offset {offset}` ends it; see docs/runbooks/ProcessWaits.md"
    )


def _written_at(kafka: KafkaSettings, group_id: str, place: _Place, offset: int) -> datetime | None:
    """The timestamp of the first open record: log append time of a log, else the producer's; None if it is not read."""
    reader = consumer(kafka, group_id, subscribed=False, overrides={"isolation.level": "read_uncommitted"})
    try:
        reader.assign([TopicPartition(*place, offset)])
        message = reader.poll(REQUEST_SECONDS)
        if message is None or message.error() is not None:
            return None
        return datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    finally:
        reader.close()
