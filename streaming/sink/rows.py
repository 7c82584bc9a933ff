"""Rows and positions of one generation, moved together in one database transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Dialect, Engine, Table, select, text
from sqlalchemy.dialects import postgresql

from contracts.tables import metadata, sink_positions
from kafka_client.errors import RESTORING, Fatal
from streaming.sink.targets import SinkTarget

# What the sink itself, or the table, adds to the columns that come from the state topic.
_OWN = ("generation", "updated_at", "apply_number", "is_negative")
_DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_TAKE_APPLY_NUMBER = text(
    "UPDATE generations SET apply_number = apply_number + 1 "
    "WHERE pipeline = :pipeline AND number = :generation AND state <> 'retired' RETURNING apply_number"
)
_MOVE = text(
    "UPDATE sink_positions AS p "
    "SET next_offset = n.next_offset, watermark = coalesce(n.watermark, p.watermark) "
    "FROM unnest(CAST(:partitions AS int[]), CAST(:expected AS bigint[]), CAST(:next AS bigint[]), "
    "CAST(:watermarks AS timestamptz[])) AS n(partition, expected, next_offset, watermark) "
    "WHERE p.pipeline = :pipeline AND p.generation = :generation AND p.partition = n.partition "
    "AND p.topic_id = :topic_id AND p.next_offset = n.expected"
)
_BEGIN = text(
    "INSERT INTO sink_positions (pipeline, generation, partition, topic_id, next_offset) "
    "SELECT :pipeline, :generation, p, :topic_id, 0 FROM generate_series(0, :partitions - 1) AS p "
    "ON CONFLICT DO NOTHING"
)


class Rows:
    """The result rows of one generation, and the offsets that they reflect.

    An apply is refused with Fatal if the stored offsets are not the expected ones or belong to another topic:
    another process wrote, and going on would overwrite newer rows with older ones.
    """

    def __init__(self, engine: Engine, target: SinkTarget) -> None:
        self._engine = engine
        self._target = target
        table = metadata.tables[target.pipeline.table]
        self.columns = tuple(column.name for column in table.columns if column.name not in _OWN)
        self._upsert = text(_upsert(table, self.columns))
        self._names = {"pipeline": target.pipeline.name, "generation": target.number}

    def open(self) -> dict[int, int]:
        """The offset to read next, by partition; 0 where nothing was read yet."""
        with self._engine.begin() as connection:
            connection.execute(
                _BEGIN,
                self._names | {"topic_id": self._target.topic_id, "partitions": self._target.partitions},
            )
            stored = self._stored(connection)
        if {topic_id for topic_id, _ in stored.values()} != {self._target.topic_id}:
            raise Fatal(
                f"{self._target}: the rows come from another state topic than {self._target.topic} "
                f"with id {self._target.topic_id}; {RESTORING}"
            )
        return {partition: next_offset for partition, (_, next_offset) in stored.items()}

    def apply(
        self,
        rows: Sequence[Mapping[str, Any]],
        watermarks: Mapping[int, datetime],
        expected: Mapping[int, int],
        following: Mapping[int, int],
    ) -> int | None:
        """Write rows, watermarks and offsets in one transaction; returns its apply number.

        The number is taken under the generation's row lock and held to the commit, so a reader that sees
        a greater one sees everything that was applied with a smaller one. None: exactly this was applied already,
        by an attempt whose response was lost.
        """
        moved = [p for p, offset in following.items() if offset != expected[p]]
        with self._engine.connect() as connection:
            number: int | None = connection.scalar(_TAKE_APPLY_NUMBER, self._names)
            if number is None:
                raise Fatal(f"{self._target} is retired or gone: its rows are written no more")
            changed = connection.execute(
                _MOVE,
                self._names
                | {
                    "topic_id": self._target.topic_id,
                    "partitions": moved,
                    "expected": [expected[p] for p in moved],
                    "next": [following[p] for p in moved],
                    "watermarks": [watermarks.get(p) for p in moved],
                },
            )
            if changed.rowcount != len(moved):
                self._refuse_unless_done(connection, following)
                return None
            if rows:
                values = {name: [row.get(name) for row in rows] for name in self.columns}
                connection.execute(
                    self._upsert, values | {"generation": self._target.number, "apply_number": number}
                )
            connection.commit()
        return number

    def _stored(self, connection: Connection) -> dict[int, tuple[str, int]]:
        columns = sink_positions.c
        rows = connection.execute(
            select(columns.partition, columns.topic_id, columns.next_offset).where(
                columns.pipeline == self._target.pipeline.name, columns.generation == self._target.number
            )
        )
        return {partition: (topic_id, next_offset) for partition, topic_id, next_offset in rows}

    def _refuse_unless_done(self, connection: Connection, following: Mapping[int, int]) -> None:
        stored = self._stored(connection)
        if stored != {p: (self._target.topic_id, offset) for p, offset in following.items()}:
            raise Fatal(
                f"{self._target}: another sink moved the stored offsets, or the state topic is another; "
                "this one stops so that newer rows are not overwritten"
            )


def _upsert(table: Table, columns: Sequence[str]) -> str:
    key = [column.name for column in table.primary_key]
    arrays = ", ".join(f"CAST(:{name} AS {_type(table.columns[name])}[])" for name in columns)
    kept = [name for name in (*columns, "updated_at", "apply_number") if name not in key]
    changes = ", ".join(f"{name} = excluded.{name}" for name in kept)
    return (
        f"INSERT INTO {table.name} (generation, updated_at, apply_number, {', '.join(columns)}) "
        f"SELECT :generation, now(), :apply_number, * FROM unnest({arrays}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
    )


def _type(column: Column[Any]) -> str:
    # The collation belongs to the column, not to the type of a value on its way there.
    compiled: str = column.type.compile(dialect=_DIALECT)
    return compiled.split(" COLLATE")[0]
