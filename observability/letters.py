"""`electrored dead-letters`: what could not be taken, for a person to read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaError, KafkaException

from contracts.kafka import is_forbidden
from contracts.settings import KafkaSettings, from_environment
from contracts.topics import DEAD_LETTERS, Topic
from observability import logs
from observability.tail import Tail

# A letter that was written in a transaction of its own is followed by a marker.
OFFSETS_OF_ONE = 2
# Of what came: enough to know it by.
SHOWN_CHARACTERS = 200
GROUP = "electrored.letters"


def newest(settings: KafkaSettings, count: int, topic: Topic = DEAD_LETTERS) -> list[dict[str, Any]]:
    """So many dead letters at most, the oldest of them first. Raises KafkaException."""
    tail = Tail(settings, topic, GROUP, last=OFFSETS_OF_ONE * count)
    try:
        found = (value for _, value in tail.read() if isinstance(value, dict))
        return list(deque(found, maxlen=count))
    finally:
        tail.close()


def lines(letter: dict[str, Any]) -> Iterable[str]:
    """Where it came from and what is wrong, then the beginning of what came."""
    yield f"{letter['origin']} partition {letter['partition']} offset {letter['offset']}: {letter['reason']}"
    if letter["value"]:
        yield f"    {letter['value'].decode(errors='backslashreplace')[:SHOWN_CHARACTERS]!r}"


def problem(failure: KafkaError) -> str:
    """Why there is no answer: what Kafka denies it will deny again, and somebody has to give it."""
    if not is_forbidden(failure):
        return f"Kafka does not answer: {failure.str()}"
    missing = {
        KafkaError.TOPIC_AUTHORIZATION_FAILED: f"the right to Read the topic {DEAD_LETTERS.name}",
        KafkaError.GROUP_AUTHORIZATION_FAILED: f"the right to Describe the group {GROUP}",
    }.get(failure.code(), "the right password of ELECTRORED_KAFKA_SASL_USERNAME")
    return (
        f"Kafka refuses ({failure.str()}): {missing} is missing; `electrored-conductor` has all that this needs "
        "(`python -m contracts acls`)"
    )


def main(
    count: Annotated[int, typer.Option("-n", min=1, help="So many at most.")] = 20,
) -> None:
    """Show the newest dead letters: what could not be taken, where it came from, and why."""
    logs.configure("dead-letters")
    try:
        found = newest(from_environment(KafkaSettings), count)
    except KafkaException as error:
        raise SystemExit(f"error: {problem(error.args[0])}") from error
    for letter in found:
        for line in lines(letter):
            typer.echo(line)
    if not found:
        typer.echo("there are none")


if __name__ == "__main__":
    typer.run(main)
