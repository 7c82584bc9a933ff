"""Kafka clients of a process: the one place that turns settings into librdkafka's configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
    Uuid,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType
from pydantic import SecretStr
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from contracts.settings import KafkaSettings
from contracts.topics import Topic

# Above it a broker that does not answer is an error with a reason, not a wait.
TIMEOUT_SECONDS = 30.0
# A zombie's transaction holds back every reader of its partitions for at most this long.
TRANSACTION_TIMEOUT_MS = 5_000
# The largest record that librdkafka sends, framing included, and what it puts into one batch.
MOST_RECORD_BYTES = 1_000_000
# librdkafka detects fencing in the background, and every later call fails with "fatal" only. A new producer would take
# the transactional id back from its owner.
_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError._FATAL,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)
# Missing rights or wrong credentials: a retry gets the same answer.
_FORBIDDEN = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError._AUTHENTICATION,
    }
)


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    config = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": _revealed(settings.kafka_sasl_password),
        "sasl.oauthbearer.method": "oidc" if settings.kafka_oauth_token_url else None,
        "sasl.oauthbearer.token.endpoint.url": settings.kafka_oauth_token_url,
        "sasl.oauthbearer.client.id": settings.kafka_oauth_client_id,
        "sasl.oauthbearer.client.secret": _revealed(settings.kafka_oauth_client_secret),
        "sasl.oauthbearer.scope": settings.kafka_oauth_scope,
        "ssl.ca.location": settings.kafka_ssl_ca_file,
        "ssl.certificate.location": settings.kafka_ssl_certificate_file,
        "ssl.key.location": settings.kafka_ssl_key_file,
        "ssl.key.password": _revealed(settings.kafka_ssl_key_password),
        # A broker that restarts is back in seconds; the default of 10 s between attempts would double the outage.
        "reconnect.backoff.max.ms": 1_000,
        # librdkafka writes to stderr past our logs: warnings and errors only, or its notices on shutdown would stand
        # among the output of a command.
        "log_level": 4,
    }
    return {name: value for name, value in config.items() if value not in (None, "")}


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def transactional_producer(
    settings: KafkaSettings, transactional_id: str, batch_bytes: int = MOST_RECORD_BYTES
) -> Producer:
    """A producer for exactly-once writes; the caller runs `init_transactions`, which fences its predecessor.

    `batch_bytes`: the smallest limit of the topics that it writes to, because a refused batch is not split.
    """
    return Producer(
        client_config(settings)
        | {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            # The wait for the markers of the previous transaction: 1 ms took p95 of two hops from 97 to 26 ms.
            "retry.backoff.ms": 1,
            # Java's partitioner: one rule for every producer, ours and the company's.
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
            "batch.size": batch_bytes,
        }
    )


def is_fenced(failure: KafkaError) -> bool:
    """Whether the failure is final for this producer: it was fenced, or is in a fatal state."""
    return failure.fatal() or failure.code() in _FENCED


def is_forbidden(failure: KafkaError) -> bool:
    """Whether a right or a password is missing, which no retry changes."""
    return failure.code() in _FORBIDDEN


def consumer(
    settings: KafkaSettings,
    group_id: str,
    *,
    subscribed: bool = True,
    on_error: Callable[[KafkaError], None] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Consumer:
    """A read-committed consumer without auto-commit that treats a lost position as an error.

    `subscribed=False` is for manual assignment (reading state back, following a topic from a stored offset).
    """
    config = client_config(settings) | {
        "group.id": group_id,
        "group.protocol": "consumer" if subscribed else "classic",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        # The EOF's offset is the only way to see past transaction markers at the end of a partition.
        "enable.partition.eof": True,
        "fetch.error.backoff.ms": 50,
    }
    if on_error is not None:
        config["error_cb"] = on_error
    return Consumer(config | dict(overrides or {}))


def admin(settings: KafkaSettings) -> AdminClient:
    # With the default of 15 min a restarted broker refuses every offset request until then, because the client sends
    # the leader's former epoch.
    return AdminClient(client_config(settings) | {"metadata.max.age.ms": 5_000})


def committed_offsets(
    client: Consumer, topic: str, partitions: Iterable[int], timeout: float = TIMEOUT_SECONDS
) -> dict[int, int]:
    """Offsets that the consumer's group has committed, no transaction over them open; without those that have none.

    Raises KafkaException.
    """
    places = committed(client, topic, partitions, timeout)
    return {partition: place.offset for partition, place in places.items()}


def committed(
    client: Consumer, topic: str, partitions: Iterable[int], timeout: float = TIMEOUT_SECONDS
) -> dict[int, TopicPartition]:
    """As `committed_offsets`, with the metadata that was committed beside each offset.

    By a consumer, because an AdminClient crashes the process on "not coordinator" from a starting broker (librdkafka
    issue 5040). Raises KafkaException.
    """
    wanted = [TopicPartition(topic, partition) for partition in partitions]
    places: dict[int, TopicPartition] = {}
    for place in client.committed(wanted, timeout):
        if place.error is not None:
            raise KafkaException(place.error)
        if place.offset >= 0:
            places[place.partition] = place
    return places


# Errors of a broker for a topic that was just created.
_NOT_YET = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)


def ensure_topics(settings: KafkaSettings, topics: Iterable[Topic]) -> None:
    """Create the topics that are missing; when it returns, every partition has a leader and takes requests.

    Raises ValueError when an existing one has another partition count.
    """
    client = admin(settings)
    wanted = {topic.name: topic for topic in topics}
    created = client.create_topics(
        [
            NewTopic(t.name, t.partitions, settings.kafka_replication_factor, config=dict(t.config))
            for t in wanted.values()
        ],
        request_timeout=TIMEOUT_SECONDS,
    )
    for future in created.values():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    # CreateTopics returns a moment before a topic can be described, and that before its leader accepts requests.
    patiently = retry(
        retry=retry_if_exception(lambda error: _code(error) in _NOT_YET),
        stop=stop_after_delay(TIMEOUT_SECONDS),
        wait=wait_fixed(0.05),
        reraise=True,
    )
    described = patiently(describe_topics)(settings, wanted)
    patiently(_ask_leaders)(
        client, [TopicPartition(name, p) for name, t in described.items() for p in range(t[1])]
    )
    for name, (_, partitions) in described.items():
        if partitions != wanted[name].partitions:
            raise ValueError(
                f"topic {name} has {partitions} partitions, expected {wanted[name].partitions}: "
                "the count is fixed at creation, because it decides which partition owns a key"
            )


def _ask_leaders(client: AdminClient, partitions: list[TopicPartition]) -> None:
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    specs = dict.fromkeys(partitions, latest)
    for future in client.list_offsets(specs, request_timeout=TIMEOUT_SECONDS).values():
        future.result()


def _code(error: BaseException) -> int | None:
    return error.args[0].code() if isinstance(error, KafkaException) else None


def record_limits(settings: KafkaSettings, names: Iterable[str]) -> dict[str, int]:
    """The largest batch, so the largest record, that each topic and our producers take.

    A topic whose configuration may not be read counts with Kafka's default. Raises KafkaException.
    """
    names = list(names)
    client = admin(settings)
    configs = client.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=TIMEOUT_SECONDS
    )
    limits = dict.fromkeys(names, MOST_RECORD_BYTES)
    for resource, future in configs.items():
        try:
            limit = int(future.result()["max.message.bytes"].value)
        except KafkaException as error:
            if not is_forbidden(error.args[0]):
                raise
            continue
        limits[resource.name] = min(limit, MOST_RECORD_BYTES)
    return limits


def describe_topics(settings: KafkaSettings, names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Topic id and partition count by name. Raises KafkaException for a topic that does not exist."""
    names = list(names)
    # Bound to a name: a client that goes out of scope cancels its requests.
    client = admin(settings)
    futures = client.describe_topics(TopicCollection(names), request_timeout=TIMEOUT_SECONDS)
    described = {}
    for name in names:
        description = futures[name].result()
        topic_id: Uuid = description.topic_id
        described[name] = (str(topic_id), len(description.partitions))
    return described
