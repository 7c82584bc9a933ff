"""The local store: a cache that notes what it reflects, and is thrown away on doubt."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafka_client.errors import Fatal
from streaming.engine.state import PartitionStore, StateStore

TOPIC = "topic-id"


def filled(folder: Path, topic: str = TOPIC, next_offset: int = 5) -> StateStore:
    """A store whose partition 0 holds one value and its note."""
    store = StateStore(folder, topic)
    store.open(0, end=0)
    store.put_many(0, {b"a|b": b"1"})
    store.settle({0: next_offset})
    return store


def test_values_and_note_are_there_after_opening_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path, TOPIC)
    assert store.open(2, end=0).next_offset == 0
    store.put_many(2, {b"a|b": b"1", b"c|d": b"2"})
    store.settle({2: 17})
    store.close(2)
    assert store.open(2, end=17).next_offset == 17
    assert store.get_many(2, [b"c|d", b"new", b"a|b"]) == [b"2", None, b"1"]
    store.close(2)


def test_values_without_a_note_leave_the_store_behind_and_not_ahead(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.put_many(0, {b"a|b": b"2"})
    store.settle({})
    store.close(0)
    assert store.open(0, end=9).next_offset == 5
    store.close(0)


@pytest.mark.parametrize(
    ("topic", "next_offset", "current"),
    [
        (TOPIC, 100, None),
        ("the topic before it was re-created", 5, None),
        (TOPIC, 5, b"not what RocksDB wrote"),
    ],
    ids=["it claims more than the topic has", "of another topic", "damaged"],
)
def test_a_store_is_thrown_away(tmp_path: Path, topic: str, next_offset: int, current: bytes | None) -> None:
    filled(tmp_path, topic, next_offset).close(0)
    if current is not None:
        (tmp_path / "0" / "CURRENT").write_bytes(current)
    store = StateStore(tmp_path, TOPIC)
    assert store.open(0, end=99).next_offset == 0
    assert store.get_many(0, [b"a|b"]) == [None]
    store.close(0)


def test_a_store_in_use_is_fatal_and_stays_as_it_is(tmp_path: Path) -> None:
    store = PartitionStore(tmp_path / "0", TOPIC, end=0)
    store.write([(b"a|b", b"1")], 5)
    with pytest.raises(Fatal, match="another worker started with the same --slot"):
        PartitionStore(tmp_path / "0", TOPIC, end=5)
    assert store.get_many([b"a|b"]) == [b"1"]
    store.close()
