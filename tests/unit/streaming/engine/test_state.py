"""The local store: a cache that notes what it reflects, and is thrown away on doubt."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafka_client.errors import Fatal
from streaming.engine.state import PartitionStore, StateStore

TOPIC = "topic-id"


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
    store = StateStore(tmp_path, TOPIC)
    store.open(0, end=0)
    store.put_many(0, {b"a|b": b"1"})
    store.settle({0: 5})
    store.put_many(0, {b"a|b": b"2"})
    store.settle({})
    store.close(0)
    assert store.open(0, end=9).next_offset == 5
    store.close(0)


def test_a_store_that_claims_more_than_the_topic_has_is_thrown_away(tmp_path: Path) -> None:
    store = StateStore(tmp_path, TOPIC)
    store.open(0, end=0)
    store.put_many(0, {b"a|b": b"1"})
    store.settle({0: 100})
    store.close(0)
    assert store.open(0, end=99).next_offset == 0
    assert store.get_many(0, [b"a|b"]) == [None]
    store.close(0)


def test_a_store_of_another_topic_is_thrown_away(tmp_path: Path) -> None:
    former = StateStore(tmp_path, "the topic before it was made anew")
    former.open(0, end=0)
    former.put_many(0, {b"a|b": b"1"})
    former.settle({0: 5})
    former.close(0)
    store = StateStore(tmp_path, TOPIC)
    assert store.open(0, end=5).next_offset == 0
    assert store.get_many(0, [b"a|b"]) == [None]
    store.close(0)


def test_a_damaged_store_is_thrown_away(tmp_path: Path) -> None:
    store = StateStore(tmp_path, TOPIC)
    store.open(0, end=0)
    store.put_many(0, {b"a|b": b"1"})
    store.settle({0: 5})
    store.close(0)
    (tmp_path / "0" / "CURRENT").write_bytes(b"not what RocksDB wrote")
    assert store.open(0, end=5).next_offset == 0
    assert store.get_many(0, [b"a|b"]) == [None]
    store.close(0)


def test_a_store_in_use_is_fatal_and_stays_as_it_is(tmp_path: Path) -> None:
    store = PartitionStore(tmp_path / "0", TOPIC, end=0)
    store.write([(b"a|b", b"1")], 5)
    with pytest.raises(Fatal, match="another worker started with the same --slot"):
        PartitionStore(tmp_path / "0", TOPIC, end=5)
    assert store.get_many([b"a|b"]) == [b"1"]
    store.close()
