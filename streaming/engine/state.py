"""The local store of totals: a cache of the state topic on disk, so state may be larger than memory.

It is written after the commit, with the next offset of the state topic in the same batch. Its content is used only if
that offset fits the topic: otherwise it is dropped and read anew. A process that died between commit and write left it
behind, never ahead; the next start reads the rest from the topic.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rocksdict import Options, Rdict, WriteBatch

from kafka_client.errors import Fatal
from observability import logs

# Group keys hold a separator and `watermark` is text, so neither begins with a zero byte.
_TOPIC_ID = b"\x00topic_id"
_NEXT_OFFSET = b"\x00next_offset"
# Per partition; a worker has a handful of partitions, and totals of a day are small.
_WRITE_BUFFER_BYTES = 16 * 1024 * 1024

# RocksDB's own names.
_SIZES = ("estimate-num-keys", "total-sst-files-size", "size-all-mem-tables")

_log = logs.get(__name__)


@dataclass(frozen=True)
class Size:
    """As RocksDB estimates it, without reading: groups, and bytes on disk and in memory."""

    groups: int
    bytes: int


class PartitionStore:
    """The totals of one state partition, and the offset of the state topic that they reflect."""

    def __init__(self, folder: Path, topic_id: str, end: int) -> None:
        """Open the store; it starts empty if it is of another topic or its offset is beyond the topic's `end`."""
        self._folder = folder
        self._db = self._open(topic_id)
        self.next_offset = self._noted(topic_id)
        if self.next_offset is None or self.next_offset > end:
            if self.next_offset is not None:
                _log.warning(
                    "state store is ahead of its topic", store=str(folder), noted=self.next_offset, end=end
                )
            self._start_anew(topic_id)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return cast(list[bytes | None], self._db.get(list(keys)))

    def write(self, items: Iterable[tuple[bytes, bytes]], next_offset: int | None) -> None:
        """Values and next offset in one batch; without an offset the old one stays, and a restart reads them again."""
        batch = WriteBatch(raw_mode=True)
        for key, value in items:
            batch.put(key, value)
        if next_offset is not None:
            batch.put(_NEXT_OFFSET, str(next_offset).encode())
            self.next_offset = next_offset
        self._db.write(batch)

    def size(self) -> Size:
        values = {name: int(self._db.property_int_value(f"rocksdb.{name}") or 0) for name in _SIZES}
        return Size(
            values["estimate-num-keys"], values["total-sst-files-size"] + values["size-all-mem-tables"]
        )

    def close(self) -> None:
        self._db.close()

    def _open(self, topic_id: str) -> Rdict:
        try:
            return Rdict(str(self._folder), _options())
        except Exception as error:  # rocksdict has no class of its own for errors of RocksDB
            if "lock" in str(error).lower():
                raise Fatal(
                    f"state store {self._folder} is in use: was another worker started with the same --slot?"
                ) from error
            _log.warning(
                "state store does not open and is read anew", store=str(self._folder), reason=str(error)
            )
            self._remove()
            return Rdict(str(self._folder), _options())

    def _noted(self, topic_id: str) -> int | None:
        """The stored offset; None for a store that is new or of another topic."""
        known, noted = self.get_many([_TOPIC_ID, _NEXT_OFFSET])
        if known is None and noted is None:
            return None
        if known != topic_id.encode() or noted is None or not noted.isdigit():
            _log.warning("state store is not of this topic and is read anew", store=str(self._folder))
            return None
        return int(noted)

    def _start_anew(self, topic_id: str) -> None:
        self._db.close()
        self._remove()
        self._db = Rdict(str(self._folder), _options())
        self._db[_TOPIC_ID] = topic_id.encode()
        self.write((), 0)

    def _remove(self) -> None:
        if self._folder.exists():
            shutil.rmtree(self._folder)


class StateStore:
    """The stores of a worker's state partitions, one below `folder` for each."""

    def __init__(self, folder: Path, topic_id: str) -> None:
        self._folder = folder
        self._topic_id = topic_id
        self._open: dict[int, PartitionStore] = {}
        self._accepted: dict[int, dict[bytes, bytes]] = {}

    def open(self, partition: int, end: int) -> PartitionStore:
        """The partition's store, checked against the end of the state topic. The caller brings it up to date."""
        if partition in self._open:
            self.close(partition)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open[partition] = PartitionStore(self._folder / str(partition), self._topic_id, end)
        return self._open[partition]

    def close(self, partition: int) -> None:
        store = self._open.pop(partition, None)
        if store is not None:
            store.close()

    def close_all(self) -> None:
        """Including those that are being restored: an open store is locked for other processes."""
        for partition in sorted(self._open):
            self.close(partition)

    def get_many(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._open[partition].get_many(keys)

    def size(self, partition: int) -> Size:
        return self._open[partition].size()

    def put_many(self, partition: int, items: Mapping[bytes, bytes]) -> None:
        """Committed totals; they are written by `settle`, together with the offset they reflect."""
        self._accepted.setdefault(partition, {}).update(items)

    def settle(self, delivered: Mapping[int, int]) -> None:
        """Write what was put, with the next offset of the state topic by partition."""
        for partition in self._accepted.keys() | delivered.keys():
            items = self._accepted.pop(partition, {})
            self._open[partition].write(items.items(), delivered.get(partition))


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(2)
    # Totals are looked up by exact key; a miss is a new group, and there are many of those.
    options.optimize_for_point_lookup(16)
    return options
