"""The ACLs of each process, and no more: one user for each kind of process, from the topic catalogue.

A right to read or write includes the right to describe, which is all that a group needs that commits nothing. Internal
topics, groups and transactional ids of generations are given by prefix (`<pipeline>.g`), so that a replay needs no
new rights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from contracts.datasets import PIPELINES
from contracts.settings import KafkaSettings
from contracts.topics import (
    DEAD_LETTERS,
    ENRICHED_SALES,
    LATE_EVENTS,
    OPENLINEAGE_EVENTS,
    PAYMENT_CONFIRMATIONS,
    PUBLIC,
    SALES_EVENTS,
    SOURCE_POSITIONS,
    TOP_SALES_BY_CITY,
    TOP_SALESMAN_BY_COUNTRY,
    Topic,
)
from kafka_client.clients import TIMEOUT_SECONDS, admin

Resource = Literal["topic", "group", "transactional-id"]
Operation = Literal["Read", "Write", "Create", "Delete", "Describe", "DescribeConfigs", "AlterConfigs"]
# Default name of a user: this prefix and its process.
USER_PREFIX = "electrored-"


@dataclass(frozen=True)
class Grant:
    """Operations on one resource, or on all whose names begin so."""

    resource: Resource
    name: str
    operations: tuple[Operation, ...]
    prefixed: bool = False

    def __str__(self) -> str:
        return f"`{self.name}{'*' if self.prefixed else ''}` {', '.join(self.operations)}"


def _topics(topics: Iterable[Topic], *operations: Operation) -> tuple[Grant, ...]:
    return tuple(Grant("topic", topic.name, operations) for topic in topics)


def _generations(resource: Resource, *operations: Operation) -> tuple[Grant, ...]:
    """Of every generation of every pipeline."""
    return tuple(Grant(resource, f"{pipeline}.g", operations, prefixed=True) for pipeline in PIPELINES)


_SHOWN = (TOP_SALES_BY_CITY, TOP_SALESMAN_BY_COUNTRY, ENRICHED_SALES)
# DescribeConfigs: topic settings are checked at a start, see kafka_client/topic_settings.py.
_WORK = (
    *_topics((SALES_EVENTS, PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS), "Read", "DescribeConfigs"),
    *_topics((LATE_EVENTS, DEAD_LETTERS), "Write"),
)
# Processes that move data emit lineage events.
_EMIT = _topics((OPENLINEAGE_EVENTS,), "Write")

# By process. The API has no business with Kafka.
GRANTS: dict[str, tuple[Grant, ...]] = {
    # `contracts setup` and `streaming init`
    "setup": (
        *_topics(PUBLIC, "Create", "Describe", "DescribeConfigs", "AlterConfigs"),
        *_topics((OPENLINEAGE_EVENTS,), "Create", "Describe"),
        *_generations("topic", "Create", "Describe", "DescribeConfigs", "AlterConfigs"),
    ),
    # `sources postgres`
    "capture": (
        *_EMIT,
        # A source reads the record limit of each of its topics. If its position is lost, it searches the log for
        # events of its own.
        *_topics((SALES_EVENTS, SOURCE_POSITIONS), "Read", "Write", "DescribeConfigs"),
        *_topics((DEAD_LETTERS,), "Write", "DescribeConfigs"),
        Grant("group", "sources.postgres", ("Describe",)),
        Grant("transactional-id", "sources.postgres.", ("Write",), prefixed=True),
    ),
    # `streaming work`; it deletes partials that it has merged
    "worker": (
        *_EMIT,
        *_WORK,
        *_generations("topic", "Read", "Write", "Delete", "DescribeConfigs"),
        *_generations("group", "Read"),
        *_generations("transactional-id", "Write"),
    ),
    # `streaming sink`; its offsets are in the database, its groups are no more than names
    "sink": (
        *_topics((OPENLINEAGE_EVENTS,), "Read", "Write"),
        Grant("group", f"{OPENLINEAGE_EVENTS.name}.keeper", ("Describe",)),
        *_generations("topic", "Read"),
        *_generations("group", "Describe"),
    ),
    # `streaming publish`
    "publisher": (
        *_EMIT,
        *_generations("topic", "Read"),
        *_topics(_SHOWN, "Read", "Write"),
        *(Grant("group", f"{topic.name}.publisher", ("Read",), prefixed=True) for topic in _SHOWN),
        *(Grant("transactional-id", f"{topic.name}.publisher", ("Write",)) for topic in _SHOWN),
    ),
    # `observability`; it joins no group, and reads the offsets of others
    "observer": (
        *_topics((SOURCE_POSITIONS, DEAD_LETTERS), "Read"),
        *_topics(PUBLIC, "Describe", "DescribeConfigs"),
        *_generations("topic", "Describe", "DescribeConfigs"),
        *_generations("group", "Describe"),
        Grant("group", "electrored.observer", ("Describe",)),
    ),
    # Dagster's runs and `electrored replay`: files, payments, replays, and a look at everything
    "conductor": (
        *_EMIT,
        *_WORK,
        # A replay creates all topics that it needs; these exist already, but Kafka checks the right.
        *_topics((SALES_EVENTS, PAYMENT_CONFIRMATIONS), "Write", "Create"),
        *_topics((SOURCE_POSITIONS,), "Write"),
        *_topics((DEAD_LETTERS,), "Read", "DescribeConfigs"),
        *_topics(_SHOWN, "Describe"),
        *_generations("topic", "Read", "Write", "Create", "Delete", "DescribeConfigs"),
        *_generations("group", "Read", "Delete"),
        *(
            Grant("group", name, ("Describe",))
            for name in ("sources.csv", "sources.soap", "electrored.standing", "electrored.letters")
        ),
        *_generations("transactional-id", "Write"),
        Grant("transactional-id", "sources.csv", ("Write",)),
        Grant("transactional-id", "sources.soap", ("Write",)),
    ),
}


def principals(given: Iterable[str] = ()) -> dict[str, str]:
    """The principal of each process: `PROCESS=PRINCIPAL` where it is given, else `User:electrored-PROCESS`.

    A managed service names the owner of an API key by itself (`User:sa-a1b2c3`). Raises ValueError.
    """
    named = {process: f"User:{USER_PREFIX}{process}" for process in GRANTS}
    for line in given:
        process, _, principal = line.partition("=")
        if process not in GRANTS:
            raise ValueError(f"{line}: {process} is no process; these are: {', '.join(GRANTS)}")
        kind, _, name = principal.partition(":")
        if not (kind and name):
            raise ValueError(f"{line}: a principal is a kind and a name, as in User:sa-a1b2c3")
        named[process] = principal
    return named


def commands(bootstrap: str, named: Mapping[str, str]) -> Iterator[str]:
    """The ACLs as commands of `kafka-acls.sh`, to be run by a user with the right to alter ACLs."""
    for process, grants in GRANTS.items():
        for grant in grants:
            pattern = " --resource-pattern-type prefixed" if grant.prefixed else ""
            operations = " ".join(f"--operation {operation}" for operation in grant.operations)
            yield (
                f"kafka-acls.sh --bootstrap-server {bootstrap} --command-config admin.properties "
                f"--add --allow-principal {named[process]} {operations} --{grant.resource} {grant.name}{pattern}"
            )


def create(settings: KafkaSettings, named: Mapping[str, str]) -> int:
    """Create the ACLs of every process; returns how many there are. Existing ones stay."""
    bindings = [
        AclBinding(
            ResourceType[grant.resource.replace("-", "_").upper()],
            grant.name,
            ResourcePatternType.PREFIXED if grant.prefixed else ResourcePatternType.LITERAL,
            named[process],
            "*",
            AclOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).upper()],
            AclPermissionType.ALLOW,
        )
        for process, grants in GRANTS.items()
        for grant in grants
        for operation in grant.operations
    ]
    client = admin(settings)
    for future in client.create_acls(bindings, request_timeout=TIMEOUT_SECONDS).values():
        future.result()
    return len(bindings)


def table() -> str:
    """The ACLs as a Markdown table, for the documentation."""
    lines = ["| user | topics | groups | transactional ids |", "|---|---|---|---|"]
    for process, grants in GRANTS.items():
        cells = [
            "<br>".join(str(grant) for grant in grants if grant.resource == resource)
            for resource in ("topic", "group", "transactional-id")
        ]
        lines.append(f"| `{USER_PREFIX}{process}` | {' | '.join(cells)} |")
    return "\n".join(lines)
