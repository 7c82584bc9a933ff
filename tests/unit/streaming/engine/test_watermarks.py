"""The watermark of the frontiers of several sources, and when there is none yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Message

from kafka_client.errors import Fatal
from kafka_client.writer_schemas import LostSchema, Undecodable
from streaming.engine.watermarks import Frontiers

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SOURCES = {"postgres": True, "csv": False}


class Positions:
    """The topic of positions, and the codec of its values, in memory."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.values: list[dict[str, Any]] = []

    def write(self, source: str, frontier: datetime | None) -> None:
        self.values.append({"source": source, "frontier": frontier})
        offset = len(self.values) - 1
        value = str(offset).encode()
        self.messages.append(Message(topic="positions", offset=offset, key=source.encode(), value=value))

    def write_nonsense(self, source: str) -> None:
        self.messages.append(Message(topic="positions", offset=0, key=source.encode(), value=b"nonsense"))

    def assign(self, _: object) -> None: ...

    def consume(self, _: int, __: float) -> list[Message]:
        messages, self.messages = self.messages, []
        return messages

    def decode(self, value: bytes) -> tuple[str, dict[str, Any]]:
        if value == b"nonsense":
            raise Undecodable("no registry header")
        if value == b"lost":
            raise LostSchema(99, "a record of ours")
        return "electrored.SourcePosition", self.values[int(value)]


@pytest.fixture
def positions() -> Positions:
    return Positions()


def frontiers(positions: Positions, sources: dict[str, bool]) -> Frontiers:
    codec: Any = positions
    consumer: Any = positions
    return Frontiers(consumer, "positions", codec, 0, sources)


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("frontiers_of", "watermark"),
    [
        ({"postgres": NOW, "csv": NOW - MINUTE}, NOW - MINUTE),
        ({"postgres": NOW, "soap": NOW - MINUTE}, NOW),
        ({"postgres": NOW}, NOW),
        ({"postgres": datetime.fromtimestamp(0, UTC)}, None),
    ],
    ids=[
        "the least counts", "a source of another log holds nothing back", "files that never came hold nothing back",
        "the epoch holds everything back",
    ],
)  # fmt: skip
def test_the_watermark(
    positions: Positions, frontiers_of: dict[str, datetime], watermark: datetime | None
) -> None:
    for source, frontier in frontiers_of.items():
        positions.write(source, frontier)
    assert frontiers(positions, SOURCES).read() == watermark


def test_change_capture_that_comes_later_is_the_first_watermark(positions: Positions) -> None:
    positions.write("csv", NOW)
    known = frontiers(positions, SOURCES)
    assert known.read() is None
    positions.write("postgres", NOW - MINUTE)
    assert known.read() == NOW - MINUTE


def test_files_that_are_all_taken_hold_nothing_back(positions: Positions) -> None:
    positions.write("csv", NOW)
    positions.write("postgres", NOW + timedelta(seconds=2))
    read = frontiers(positions, SOURCES)
    assert read.read() == NOW
    positions.write("csv", None)
    assert read.read() == NOW + timedelta(seconds=2)


def test_row_22_what_others_wrote_over_a_position_is_passed_over(positions: Positions) -> None:
    known = frontiers(positions, SOURCES)
    positions.write("postgres", NOW)
    positions.write_nonsense("postgres")
    assert known.read() == NOW
    positions.write_nonsense("postgres")
    assert known.read() == NOW
    positions.write("postgres", NOW + timedelta(minutes=1))
    assert known.read() == NOW + timedelta(minutes=1)


def test_row_23_what_stands_under_other_keys_is_not_looked_at(positions: Positions) -> None:
    """Not even a lost schema, or a position of one of our sources."""
    known = frontiers(positions, SOURCES)
    positions.write("postgres", NOW)
    positions.values.append({"source": "postgres", "frontier": NOW + timedelta(hours=1)})
    for key, value in ((b"\xff", b"lost"), (b"csv/range/1", b"lost"), (b"other", b"1"), (None, b"lost")):
        positions.messages.append(Message(topic="positions", offset=1, key=key, value=value))
    assert known.read() == NOW
    positions.messages.append(Message(topic="positions", offset=1, key=b"csv", value=b"lost"))
    with pytest.raises(Fatal, match="schema id 99"):
        known.read()
