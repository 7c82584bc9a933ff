"""Where partitions begin and end, open transactions included."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from kafka_client.clients import TIMEOUT_SECONDS
from kafka_client.error_codes import is_lost

REQUEST_SECONDS = 10.0
# A new topic has no leader yet; a broker that restarts is back before this.
PATIENCE_SECONDS = 30.0

Asked = dict[TopicPartition, Future[ListOffsetsResultInfo]]

EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


def listed(
    admin: AdminClient,
    places: Iterable[TopicPartition],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> dict[TopicPartition, int]:
    """Offsets by partition, asked once. Raises KafkaException. Keep the client: its answer goes with it."""
    wanted = dict.fromkeys(places, spec)
    # librdkafka refuses an empty question.
    futures = (
        admin.list_offsets(wanted, isolation_level=isolation, request_timeout=timeout_seconds)
        if wanted
        else {}
    )
    return {place: int(future.result().offset) for place, future in futures.items()}


def ask_ends(admin: AdminClient, places: Iterable[TopicPartition]) -> Asked:
    """End offsets as futures; READ_UNCOMMITTED, so they include records of open transactions."""
    return _ask(admin, places, LATEST)


def ends(admin: AdminClient, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """End offsets by partition."""
    return _answer(admin, topic, partitions, LATEST)


def beginnings(admin: AdminClient, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """The first offsets that can be read, by partition."""
    return _answer(admin, topic, partitions, EARLIEST)


def _ask(admin: AdminClient, places: Iterable[TopicPartition], spec: OffsetSpec) -> Asked:
    asked: Asked = admin.list_offsets(
        {place: spec for place in places},  # noqa: C420 - the stub wants the wider value type
        isolation_level=IsolationLevel.READ_UNCOMMITTED,
        request_timeout=REQUEST_SECONDS,
    )
    return asked


def _passes(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and not is_lost(error.args[0])


@retry(
    retry=retry_if_exception(_passes),
    stop=stop_after_delay(PATIENCE_SECONDS),
    wait=wait_fixed(0.1),
    reraise=True,
)
def _answer(admin: AdminClient, topic: str, partitions: Iterable[int], spec: OffsetSpec) -> dict[int, int]:
    asked = _ask(admin, [TopicPartition(topic, partition) for partition in partitions], spec)
    return {place.partition: int(future.result().offset) for place, future in asked.items()}
