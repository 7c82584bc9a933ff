"""Values of a poll → columns, from any writer: a foreign value neither stops a poll nor spoils another value."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import fastavro
import polars as pl

from kafka_client.registry import HEADER_BYTES, header, is_record, schema_id_of
from kafka_client.writer_schemas import LostSchema, Undecodable, UnknownSchema, one_line
from streaming.engine.blocks import Records, attempt
from streaming.engine.expressions import SCALE
from streaming.engine.resolution import difference, is_decimal, is_timestamp
from streaming.engine.row_codec import Row, event_reader
from streaming.engine.windows import to_micros

# A random mark between values: a record that is longer or shorter than its schema cannot pass as two others.
MARK = os.urandom(8)
_PREFIX = "_prefix"

# Returns the parsed writer schema. Raises Undecodable for an id that is unknown or of another schema; any other
# exception does not concern the value.
SchemaLookup = Callable[[int], Any]

# Timestamps that a datetime can hold, which record-wise readers need; in microseconds.
TIMES = to_micros(datetime.min.replace(tzinfo=UTC)), to_micros(datetime.max.replace(tzinfo=UTC))
# Called for an own id that the registry lost. Returns when the registry has it again; raises without a callable.
OnLost = Callable[[LostSchema, Callable[[], bool] | None], None]
# So many values of a poll, if they are most of it, are not foreign: their ids were ours and are not among those kept.
MANY_LOST = 50
# So many ids of a poll are checked for that.
MOST_IDS = 10


@dataclass
class Decoded:
    """The events of a poll as columns. `row` is the index of the value; `bad` lists the others with the reason."""

    frame: pl.DataFrame
    bad: list[tuple[int, str]] = field(default_factory=list)


# What stands before each value of a block: the mark and the registry's header.
_MARKED = {"name": _PREFIX, "type": {"type": "fixed", "name": "Prefix", "size": len(MARK) + HEADER_BYTES}}


def _refuse(error: LostSchema, _: Callable[[], bool] | None) -> None:
    raise error


@dataclass(frozen=True)
class _Writer:
    """How to read the marked records of a writer's schema as columns of the reader's."""

    schema_id: int
    name: str
    records: Records
    present: list[str]
    columns: list[pl.Expr]
    # Reads a value that is in no doubt; None for a schema that is read as columns only.
    read_row: Callable[[bytes], Row] | None

    def read(self, values: Sequence[bytes]) -> pl.DataFrame:
        """The values as columns. Raises if one is no record of the schema, or does not end where it should."""
        # The first value once more at the end: the mark before it proves where the last one ended.
        body = MARK.join([b"", *values, values[0]])
        frame = self.records.read(len(values) + 1, body, [_PREFIX, *self.present])
        if frame.height != len(values) + 1:
            raise ValueError("other records than values")
        frame = frame.select(pl.col(_PREFIX) == pl.lit(MARK + header(self.schema_id)), *self.columns)
        if not frame.drop_in_place(_PREFIX).all():
            raise ValueError("a record does not end where its value ends")
        frame = frame.head(-1)
        if any(column.null_count() for column in frame.get_columns()):
            raise Undecodable("a needed field is null or out of its range")
        return frame


class Decoder:
    """Values with a registry header → the given columns of a reader schema.

    Writer schemas come by id; several in one poll are several blocks. A block that does not decode, or whose marks
    are not where they belong, is bisected until the bad values stand alone: a value is judged by itself only.
    What a value or its schema raises is attributed to it, as long as a sound value can still be read.

    A value that decodes as the reader's schema to the last byte is lost, and not set aside, if its id is unknown to the
    registry or of another schema, though it is among `own_ids`, which the registry once gave to the reader's schema; or
    if such values of any id are most of a poll, and many: the own ids may not have been kept.
    """

    def __init__(
        self,
        reader: Any,
        columns: Sequence[str],
        lookup: SchemaLookup,
        on_lost: OnLost | None = None,
        own_ids: Collection[int] = (),
    ) -> None:
        self._columns = list(columns)
        self._lookup = lookup
        self._on_lost = on_lost or _refuse
        self._own_ids = frozenset(own_ids)
        # Ids of the newest poll that were unknown to the registry.
        self._unknown: set[int] = set()
        self._fields = {f["name"]: f for f in reader["fields"]}
        for column in self._columns:
            avro = self._fields[column]["type"]
            if is_decimal(avro) and avro.get("scale", 0) != SCALE:
                raise ValueError(
                    f"{column} has {avro.get('scale', 0)} decimals, the engine calculates in {SCALE}"
                )
        # Of columns whose type has fewer numbers than its bytes hold.
        self._ranges = {
            c: found for c in self._columns if (found := _range(self._fields[c]["type"])) is not None
        }
        self._dtypes = dict(Records(reader).read(0, b"", self._columns).schema)
        self._writers: dict[int, _Writer | Undecodable] = {}
        self._own = self._writer_of(0, reader)
        self._sound = header(0) + b"".join(_zero(f["type"]) for f in reader["fields"])
        self._prove()

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Columns of all values that are sound, in their order, and the reason for each that is not."""
        if values:
            whole = self._whole(values)
            if whole is not None:
                return Decoded(whole.with_row_index("row"))
        while True:
            decoded = self._by_schema(values)
            if decoded.bad:
                self._prove()
            lost = self._lost(values, decoded)
            if lost is None:
                return decoded
            is_found = partial(self._is_found, lost) if lost in self._unknown else None
            self._on_lost(LostSchema(lost, self._own.name), is_found)

    def rows(self, values: Sequence[bytes | None]) -> tuple[list[tuple[int, Row]], list[tuple[int, str]]]:
        """As `decode`, each event as a row beside the index of its value.

        If anything about a value is in doubt, the poll is decoded as columns: what is sound is decided in one place.
        """
        try:
            return [(row, self._row(value)) for row, value in enumerate(values)], []
        except (ValueError, IndexError):
            decoded = self.decode(values)
        frame = decoded.frame.with_columns(pl.col(pl.Decimal).to_physical())
        rows = zip(frame["row"].to_list(), frame.drop("row").iter_rows(named=True), strict=True)
        return list(rows), decoded.bad

    def _row(self, value: bytes | None) -> Row:
        """Raises ValueError or IndexError for a value that is in doubt."""
        writer = self._writer(schema_id_of(value or b""))
        if value is None or isinstance(writer, Undecodable) or writer.read_row is None:
            raise ValueError("of no writer that rows are read of")
        return writer.read_row(value)

    def _prove(self) -> None:
        """Raise what a sound value raises: then the values are not at fault, and none of them is set aside."""
        self._own.read([self._sound])

    def _lost(self, values: Sequence[bytes | None], decoded: Decoded) -> int | None:
        """The id of most lost values; None without any. Values of a writer with another registry are not lost."""
        suspects: dict[int, list[bytes]] = {}
        for row, _ in decoded.bad:
            value = values[row] or b""
            schema_id = attempt(partial(schema_id_of, value))
            if isinstance(schema_id, int):
                suspects.setdefault(schema_id, []).append(value)
        for schema_id in sorted(self._own_ids & suspects.keys()):
            if self._own_among(schema_id, suspects[schema_id]):
                return schema_id
        if len(decoded.bad) < MANY_LOST:
            return None
        # Values that only look like ours may each have another id.
        most = sorted(suspects, key=lambda schema_id: -len(suspects[schema_id]))[:MOST_IDS]
        counts = {schema_id: self._own_among(schema_id, suspects[schema_id]) for schema_id in most}
        is_outage = sum(counts.values()) >= max(MANY_LOST, len(values) // 2 + 1)
        return max(counts, key=lambda schema_id: counts[schema_id]) if is_outage else None

    def _own_among(self, schema_id: int, values: list[bytes]) -> int:
        """How many values are of the reader's schema; 0 if a foreign id is registered with a schema that fits them."""
        if schema_id not in self._unknown and schema_id not in self._own_ids:
            registered = attempt(lambda: fastavro.parse_schema(self._lookup(schema_id)))
            if not isinstance(registered, BaseException) and is_record(values[0], registered):
                return 0
        frames: list[pl.DataFrame] = []
        own = replace(self._own, schema_id=schema_id)
        self._halve(own, values, list(range(len(values))), frames, [])
        return sum(frame.height for frame in frames)

    def _is_found(self, schema_id: int) -> bool:
        return not isinstance(self._writer(schema_id), UnknownSchema)

    def _whole(self, values: Sequence[bytes | None]) -> pl.DataFrame | None:
        """The values as columns if all are of the first one's schema, as in nearly every poll; else None."""
        schema_id = attempt(lambda: schema_id_of(values[0] or b""))
        if not isinstance(schema_id, int):
            return None
        writer = self._writer(schema_id)
        # A tombstone makes `join` raise; a check for it would cost more.
        frame = writer if isinstance(writer, Undecodable) else attempt(lambda: writer.read(values))  # type: ignore[arg-type]
        return None if isinstance(frame, BaseException) else frame

    def _by_schema(self, values: Sequence[bytes | None]) -> Decoded:
        bad: list[tuple[int, str]] = []
        rows_of: dict[int, list[int]] = {}
        for row, value in enumerate(values):
            try:
                rows_of.setdefault(schema_id_of(value or b""), []).append(row)
            except Undecodable as error:
                bad.append((row, str(error)))
        frames: list[pl.DataFrame] = []
        self._unknown.clear()
        for schema_id, rows in rows_of.items():
            writer = self._writer(schema_id)
            if isinstance(writer, UnknownSchema):
                self._unknown.add(schema_id)
            if isinstance(writer, Undecodable):
                bad += [(row, str(writer)) for row in rows]
            else:
                self._halve(writer, [values[row] or b"" for row in rows], rows, frames, bad)
        frame = pl.concat(frames).sort("row") if frames else self._empty()
        return Decoded(frame, sorted(bad))

    def _halve(
        self,
        writer: _Writer,
        values: list[bytes],
        rows: list[int],
        frames: list[pl.DataFrame],
        bad: list[tuple[int, str]],
    ) -> None:
        frame = attempt(lambda: writer.read(values))
        if isinstance(frame, pl.DataFrame):
            frames.append(
                frame.with_columns(row=pl.Series(rows, dtype=pl.get_index_type())).select(
                    "row", *self._columns
                )
            )
        elif len(rows) == 1:
            more = f": {frame}" if isinstance(frame, Undecodable) else ""
            bad.append((rows[0], f"does not decode as {writer.name}, schema id {writer.schema_id}{more}"))
        else:
            middle = len(rows) // 2
            self._halve(writer, values[:middle], rows[:middle], frames, bad)
            self._halve(writer, values[middle:], rows[middle:], frames, bad)

    def _writer(self, schema_id: int) -> _Writer | Undecodable:
        """The reader of the schema's values, or the reason why there is none."""
        known = self._writers.get(schema_id)
        if known is not None:
            return known
        try:
            schema = self._lookup(schema_id)
        except UnknownSchema as error:
            # Not remembered: it may be registered tomorrow.
            return error
        except Undecodable as error:
            writer: _Writer | BaseException = error
        else:
            writer = attempt(lambda: self._writer_of(schema_id, schema))
        if not isinstance(writer, (_Writer, Undecodable)):
            self._prove()
            writer = Undecodable(f"schema id {schema_id} cannot be read: {one_line(writer)}")
        self._writers[schema_id] = writer
        return writer

    def _writer_of(self, schema_id: int, schema: Any) -> _Writer:
        """Raises Undecodable with the reason if the schema does not fit, and anything if it is no schema."""
        if not isinstance(schema, dict) or schema.get("type") != "record":
            raise Undecodable(f"schema id {schema_id} is of no record")
        name = str(schema["name"])
        types = {f["name"]: f["type"] for f in schema["fields"]}
        missing = [c for c in self._columns if c not in types and "default" not in self._fields[c]]
        if missing:
            raise Undecodable(
                f"field {', '.join(missing)} is missing in the writer's schema {name}, schema id {schema_id}"
            )
        present = [column for column in self._columns if column in types]
        for column in present:
            if (mismatch := difference(types[column], self._fields[column]["type"])) is not None:
                raise Undecodable(
                    f"field {column} is {mismatch} in the writer's schema {name}, schema id {schema_id}"
                )
        records = Records(schema | {"fields": [_MARKED, *schema["fields"]]})
        # An unsupported schema raises now, and not for every value.
        records.read(0, b"", [_PREFIX, *present])
        columns = [self._as_reader(column, column in types) for column in self._columns]
        return _Writer(schema_id, name, records, present, columns, self._row_reader(schema["fields"], types))

    def _row_reader(
        self, fields: Sequence[Mapping[str, Any]], types: Collection[str]
    ) -> Callable[[bytes], Row] | None:
        defaults = {c: self._fields[c]["default"] for c in self._columns if c not in types}
        if any(is_decimal(self._fields[column]["type"]) for column in defaults):
            return None
        return event_reader(fields, self._columns, defaults, self._ranges)

    def _as_reader(self, column: str, is_present: bool) -> pl.Expr:
        """The column as the reader has it; null where its type has no such number: a sum of those could overflow."""
        field, dtype = self._fields[column], self._dtypes[column]
        if not is_present:
            return pl.lit(field["default"], dtype=dtype).alias(column)
        read = pl.col(column).cast(dtype)
        if column not in self._ranges:
            return read
        number, of = (
            (pl.col(column).to_physical(), pl.Int128) if is_decimal(field["type"]) else (read, pl.Int64)
        )
        least, most = (pl.lit(bound, dtype=of) for bound in self._ranges[column])
        return pl.when(number.is_between(least, most)).then(read)

    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema={"row": pl.get_index_type()} | {c: self._dtypes[c] for c in self._columns})


def _range(avro: Any) -> tuple[int, int] | None:
    """The least and the greatest number that a type has."""
    if is_decimal(avro):
        most = 10 ** avro["precision"] - 1
        return -most, most
    return TIMES if is_timestamp(avro) else None


def _zero(avro: Any) -> bytes:
    """The zero or empty value of a type; for the types of our logs' schemas."""
    return b"\x02\x00" if is_decimal(avro) else b"\x00"
