"""`electrored dead-letters`: the newest dead letters as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaError, KafkaException

from contracts.settings import KafkaSettings, from_environment
from contracts.topics import DEAD_LETTERS, Topic
from kafka_client.clients import is_forbidden
from kafka_client.tail import Tail
from observability import logs

# A letter that was written in a transaction of its own is followed by a marker, and every pipeline that reads the log
# writes it again, until compaction: so many offsets are read, more if that was too little, and at last all.
OFFSETS_OF_ONE = (8, 64, None)
# Of the value: enough to identify it.
SHOWN_CHARACTERS = 200
GROUP = "electrored.letters"


def newest(settings: KafkaSettings, count: int, topic: Topic = DEAD_LETTERS) -> list[dict[str, Any]]:
    """The newest dead letters, at most `count`, oldest first, each once per reason. Raises KafkaException."""
    letters: list[dict[str, Any]] = []
    read = 0
    for offsets in OFFSETS_OF_ONE:
        tail = Tail(settings, topic, GROUP, last=None if offsets is None else offsets * count)
        try:
            records = list(tail.read())
        finally:
            tail.close()
        letters = distinct(records)
        if len(letters) >= count or len(records) == read:
            break
        read = len(records)
    return letters[-count:]


def distinct(records: Iterable[tuple[bytes, object]]) -> list[dict[str, Any]]:
    """Each letter once, at its first place: its key identifies the record, which several readers may refuse."""
    letters: dict[tuple[bytes, str], dict[str, Any]] = {}
    for key, value in records:
        if isinstance(value, dict):
            letters.setdefault((key, value["reason"]), value)
    return list(letters.values())


def lines(letter: dict[str, Any]) -> Iterable[str]:
    """Origin and reason, then the beginning of the value."""
    yield f"{letter['origin']} partition {letter['partition']} offset {letter['offset']}: {letter['reason']}"
    if letter["value"]:
        yield f"    {letter['value'].decode(errors='backslashreplace')[:SHOWN_CHARACTERS]!r}"


def problem(failure: KafkaError) -> str:
    """Why the topic cannot be read, and for a missing right, which one."""
    if not is_forbidden(failure):
        return f"Kafka does not answer: {failure.str()}"
    missing = {
        KafkaError.TOPIC_AUTHORIZATION_FAILED: f"the right to Read the topic {DEAD_LETTERS.name}",
        KafkaError.GROUP_AUTHORIZATION_FAILED: f"the right to Describe the group {GROUP}",
    }.get(failure.code(), "a valid credential of this process (ELECTRORED_KAFKA_…)")
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
        letters = newest(from_environment(KafkaSettings), count)
    except KafkaException as error:
        raise SystemExit(f"error: {problem(error.args[0])}") from error
    for letter in letters:
        for line in lines(letter):
            typer.echo(line)
    if not letters:
        typer.echo("there are none")
