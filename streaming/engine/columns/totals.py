"""Partials of a cycle + totals of the store → totals, over columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from streaming.engine.blocks import Records, attempt, encode_rows
from streaming.engine.columns.aggregates import merge
from streaming.engine.columns.keys import group_keys
from streaming.engine.interpreters import NoGroups, PartialGroups, StateStore
from streaming.engine.pipeline import Pipeline

_PARTITION, _KEY = "_partition", "_key"


class ColumnTotals:
    """The GroupInterpreter for many groups."""

    def __init__(self, pipeline: Pipeline, prefix: bytes) -> None:
        """`prefix` stands before each total."""
        self._pipeline = pipeline
        self._prefix = prefix
        self._groups = Records(pipeline.group_schema("Partial"))
        self._columns = [field.name for field in pipeline.fields]

    def totals(
        self, partials: Sequence[PartialGroups], store: StateStore
    ) -> dict[int, list[tuple[bytes, bytes]]]:
        """All partitions at once."""
        partitions = np.repeat(
            [partition for partition, _, _ in partials], [count for _, count, _ in partials]
        )
        groups = attempt(
            lambda: self._groups.read(len(partitions), b"".join(body for _, _, body in partials))
        )
        if isinstance(groups, BaseException):
            raise NoGroups from groups
        groups = groups.hstack([pl.Series(_PARTITION, partitions, dtype=pl.Int32)])
        groups = groups.hstack([pl.Series(_KEY, group_keys(groups, self._pipeline), dtype=pl.Binary)])
        joined = merge(self._pipeline, pl.concat([self._known(groups, store), groups]), [_PARTITION, _KEY])
        rows = encode_rows(pl.DataFrame([joined[name] for name in self._columns]))
        totals: dict[int, list[tuple[bytes, bytes]]] = {}
        for partition, key, row in zip(
            joined[_PARTITION].to_list(), joined[_KEY].to_list(), rows, strict=True
        ):
            totals.setdefault(partition, []).append((key, self._prefix + row))
        return totals

    def _known(self, groups: pl.DataFrame, store: StateStore) -> pl.DataFrame:
        """The totals so far of those groups that have one."""
        wanted_keys: dict[int, dict[bytes, None]] = {}
        for partition, key in zip(groups[_PARTITION].to_list(), groups[_KEY].to_list(), strict=True):
            wanted_keys.setdefault(partition, {})[key] = None
        start = len(self._prefix)
        bodies: list[bytes] = []
        partitions: list[int] = []
        keys: list[bytes] = []
        for partition, wanted in wanted_keys.items():
            for key, value in zip(wanted, store.get_many(partition, list(wanted)), strict=True):
                if value is not None:
                    bodies.append(value[start:])
                    partitions.append(partition)
                    keys.append(key)
        # A total has the fields of a partial, so they are read alike.
        frame = self._groups.read(len(bodies), b"".join(bodies))
        return frame.hstack(
            [pl.Series(_PARTITION, partitions, dtype=pl.Int32), pl.Series(_KEY, keys, dtype=pl.Binary)]
        )
