"""Partials of a cycle + totals of the store → totals, over rows."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.engine.interpreters import NoGroups, PartialGroups, StateStore
from streaming.engine.pipeline import Pipeline
from streaming.engine.row_codec import GroupCodec, Row
from streaming.engine.rows.aggregates import Groups
from streaming.engine.rows.keys import key_maker


class RowTotals:
    """The GroupInterpreter for few groups."""

    def __init__(self, pipeline: Pipeline, prefix: bytes) -> None:
        """`prefix` stands before each total."""
        self._prefix = prefix
        self._groups = Groups(pipeline.fields, pipeline.aggregates)
        self._codec = GroupCodec(pipeline.fields)
        self._key_of = key_maker(pipeline)
        self._key_fields = [field.name for field in pipeline.key_fields]

    def totals(
        self, partials: Sequence[PartialGroups], store: StateStore
    ) -> dict[int, list[tuple[bytes, bytes]]]:
        by_partition: dict[int, dict[bytes, list[Row]]] = {}
        for partition, count, body in partials:
            for group in self._read(count, body):
                owned = by_partition.setdefault(partition, {})
                owned.setdefault(self._key_of(group), []).append(group)
        return {
            partition: self._merged(owned, store.get_many(partition, list(owned)))
            for partition, owned in by_partition.items()
        }

    def _read(self, count: int, body: bytes) -> list[Row]:
        groups: list[Row] = []
        at = 0
        try:
            for _ in range(count):
                group, at = self._codec.read(body, at)
                groups.append(group)
        except (ValueError, IndexError) as error:
            raise NoGroups from error
        return groups

    def _merged(
        self, owned: dict[bytes, list[Row]], known: Sequence[bytes | None]
    ) -> list[tuple[bytes, bytes]]:
        for (key, partials), value in zip(owned.items(), known, strict=True):
            # A total has the fields of a partial, so they are read alike.
            totals = [] if value is None else [self._codec.read(value, len(self._prefix))[0]]
            fields = {name: partials[0][name] for name in self._key_fields}
            for group in (*totals, *partials):
                self._groups.merge(key, fields, group)
        return [
            (key, self._prefix + self._codec.write(group)) for key, group in self._groups.finished().items()
        ]
